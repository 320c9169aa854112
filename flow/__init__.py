"""Optical flow between the frames of a video, and what follows from it: occlusion, pixel pairs, long tracks.

Depends on torch, numpy and OpenCV only. Importing this package is cheap; its modules import what they need.
"""
