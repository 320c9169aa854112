"""Messages of the library name settings (`data.seq_name`); a command shows them as its options (--data.seq-name)."""

from __future__ import annotations

import re
from collections.abc import Mapping


def render_message(text: str, options: Mapping[str, str]) -> str:
    """A message with every setting in backticks that the command has written as its option.

    Args:
        options: the command's options by the path of their setting. A message may leave the beginning of a path out,
            as a part of the library that does not know where its settings hang: the shortest path that ends so is
            meant, if there is only one.
    """

    def option(match: re.Match) -> str:
        path = match[1]
        ending = [known for known in options if f".{known}".endswith(f".{path}")]
        fewest = min((known.count(".") for known in ending), default=0)
        shortest = [known for known in ending if known.count(".") == fewest]
        return options[shortest[0]] if len(shortest) == 1 else match[0]

    return re.sub(r"`([a-z][a-z0-9_.]*)`", option, text)
