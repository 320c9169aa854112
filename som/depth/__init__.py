"""Depth from video. See docs/depth.md.

The way from a video to a scene uses ``sweep`` (planes swept over known poses), ``networks``, ``estimate`` (both for
one clip), ``records`` (depth written into data sets), ``metric_scale`` and ``fusion``. What the study of
self-supervised depth adds lies in ``learning``.
"""
