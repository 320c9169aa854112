"""Masks of what moves by itself, from optical flow, without learned weights."""
