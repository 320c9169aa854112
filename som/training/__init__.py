"""Optimising a scene against a video: batches, objective, density control, checkpoints, progress."""
