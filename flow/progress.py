"""How long computations say how far they are."""

from __future__ import annotations

from collections.abc import Callable

Progress = Callable[[str, float], None]
"""Called with what is being done, and the share of it that is done, in [0, 1]."""
