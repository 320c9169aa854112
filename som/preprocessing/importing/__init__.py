"""Priors that other programs made (cameras, masks, depth, tracks), read into the project's conventions."""
