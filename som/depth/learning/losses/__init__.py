"""Losses of the depth networks: pure functions of tensors, one family per file, each a mean over the pixels that count.

Masks are bool or weights >= 0 of shape (B,1,H,W). A loss of which nothing counts is a 0 through which gradients flow.
"""
