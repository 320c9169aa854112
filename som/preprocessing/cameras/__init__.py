"""Cameras of a casual video, estimated from its optical flow."""
