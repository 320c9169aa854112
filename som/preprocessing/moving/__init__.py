"""Depth of what moves by itself, from what one camera can know of it: where it stands, its size, its shape."""
