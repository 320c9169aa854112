"""Depth from video: geometry, plane sweep, networks, losses, metric scale, training, scores. See docs/depth.md."""
