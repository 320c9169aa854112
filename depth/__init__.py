"""Depth from video. For now: the projective geometry that the depth networks and the 4D scene share."""
