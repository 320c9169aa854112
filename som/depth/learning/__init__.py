"""The study of self-supervised depth: losses, samples, training, networks that match views, generated streets.

The estimate of one clip (``som.depth.estimate``) trains its small network with what is here; everything else serves
``som4d depth train`` and research.
"""
