"""What a report consists of, before it becomes a page or a sheet."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np


@dataclass
class Picture:
    """One image with a line below it."""

    image: np.ndarray
    """(H,W,3) uint8 RGB."""
    caption: str


@dataclass
class Section:
    """One part of the pipeline in pictures."""

    title: str
    explanation: str
    """How to read the pictures, and what a fault looks like."""
    pictures: list[Picture] = field(default_factory=list)


@dataclass
class Stage:
    """One row of the table of stages."""

    name: str
    state: str
    """done, given, skipped or failed."""
    method: str = ""
    seconds: float = 0.0
    findings: dict = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)


@dataclass
class Report:
    """Everything on the page, in its order."""

    title: str
    facts: list[tuple[str, str]] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    """What keeps the data set from being used."""
    warnings: list[tuple[str, str]] = field(default_factory=list)
    """(stage, sentence), the weightiest first."""
    stages: list[Stage] = field(default_factory=list)
    sections: list[Section] = field(default_factory=list)

    @property
    def verdict(self) -> str:
        """One sentence about the whole."""
        failed = [stage.name for stage in self.stages if stage.state == "failed"]
        if failed:
            return f"Preprocessing stopped: {', '.join(failed)} failed."
        if self.problems:
            return f"The data set cannot be used: {_number(len(self.problems), 'problem')}."
        if self.warnings:
            return f"The data set can be used, but {_number(len(self.warnings), 'thing')} should be looked at."
        return "The data set can be used; nothing looks wrong."

    @property
    def grade(self) -> str:
        """bad, doubtful or good."""
        if self.problems or any(stage.state == "failed" for stage in self.stages):
            return "bad"
        return "doubtful" if self.warnings else "good"


def _number(count: int, noun: str) -> str:
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"
