"""What a layout of recordings on disk is."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from som.data.recording import Recording
from som.errors import UserError


@dataclass(frozen=True)
class Layout:
    """One way in which recordings lie on disk. To add one, write a file beside this and name it in ``LAYOUTS``."""

    name: str
    """By which ``kind`` names it."""
    title: str
    """How reports call it."""
    marker: str
    """What it is recognised by, in words."""
    matches: Callable[[Path], bool]
    """Whether a folder (or file) has it."""
    read: Callable[..., Recording]
    """Called with the path, the problems to add to, and options as keywords; its docstring says which."""
    posed: bool = True
    """Whether it brings cameras, so that a scene can be made of it."""
    mask_erosion: int = 0
    """Side of the square by which its masks are eroded unless the options say otherwise."""

    @property
    def options(self) -> list[str]:
        """Names of the reader's options."""
        parameters = inspect.signature(self.read).parameters.values()
        return [p.name for p in parameters if p.kind is p.KEYWORD_ONLY]

    def check_options(self, options: dict, hidden: tuple[str, ...] = ()) -> None:
        """Raises:
        UserError: the reader has no such option; those ``hidden`` cannot be given.
        """
        known = [name for name in self.options if name not in hidden]
        for option in options:
            if option not in known:
                raise UserError(f"layout {self.name} has no option {option!r}; it has {', '.join(known) or 'none'}.")
