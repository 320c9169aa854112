"""Optical flow between the frames of a video, and what follows from it: occlusion, pixel pairs, long tracks.

Depends on torch, numpy and OpenCV only. Importing this package is cheap; its modules import what they need.
"""

import os

# Has to be set before torch is first imported: by default its OpenMP threads spin for milliseconds after every
# operation and starve the threads in which fields are computed.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("GOMP_SPINCOUNT", "4000")
