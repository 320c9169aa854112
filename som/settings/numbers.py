"""Numbers on the command line, which may be written as fractions."""

from __future__ import annotations

import math
from fractions import Fraction
from typing import Annotated

from tyro.constructors import PrimitiveConstructorSpec


def _parse(words: list[str]) -> float:
    try:
        return float(Fraction(words[0]))
    except (ValueError, ZeroDivisionError):
        value = float(words[0])  # also inf, nan, which the settings' own checks refuse
        if math.isfinite(value):
            raise
        return value


Number = Annotated[
    float,
    PrimitiveConstructorSpec(
        nargs=1,
        metavar="FLOAT",
        instance_from_str=_parse,
        is_instance=lambda value: isinstance(value, (int, float)) and not isinstance(value, bool),
        str_from_instance=lambda value: [str(value)],
    ),
]
"""A float that may be written as 1/256."""
