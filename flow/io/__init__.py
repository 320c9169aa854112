"""Files: written whole or not at all, and decoded in one place each.

``som.files`` passes these on, so that both packages share one implementation and ``flow`` can be used alone.
"""
