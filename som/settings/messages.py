"""Messages of the library name settings (`data.seq_name`); a command shows them as its options (--data.seq-name)."""

from __future__ import annotations

import re
from collections.abc import Mapping


def render_message(text: str, options: Mapping[str, str]) -> str:
    """A message with every setting in backticks that the command has written as its option.

    Args:
        options: the command's options by the path of their setting; a message may leave the beginning of a path out
            where only one ends so, as a part of the library that does not know where its settings hang.
    """

    def option(match: re.Match) -> str:
        path = match[1]
        ending = [name for known, name in options.items() if known.endswith(f".{path}")]
        return options.get(path) or (ending[0] if len(set(ending)) == 1 else match[0])

    return re.sub(r"`([a-z][a-z0-9_.]*)`", option, text)
