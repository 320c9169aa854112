"""How far a long computation is: one signature for all functions that say so, one line that shows it."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, TaskProgressColumn, TextColumn
from rich.progress import Progress as Bar

from flow.progress import Progress

__all__ = ["Progress", "ProgressLine", "format_seconds", "say", "shown_messages"]


def format_seconds(seconds: float) -> str:
    """1:05 or 2:03:04."""
    minutes, seconds = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{seconds:02d}" if hours else f"{minutes}:{seconds:02d}"


def say(text: str) -> None:
    """A line for the person who waits: results go to standard output, progress to standard error."""
    print(text, file=sys.stderr, flush=True)


class ProgressLine:
    """Shows what is being done and how far it is: a live bar on a terminal, now and then a line elsewhere.

    An instance is a ``Progress``. The bar goes away when a stage is done, and comes back with the next.

    Args:
        every_seconds: between two lines of one stage, where the output is no terminal.
    """

    def __init__(self, every_seconds: float = 10.0):
        self.every_seconds = every_seconds
        self._console = Console(file=sys.stderr)
        self._bar: Bar | None = None
        self._last = time.monotonic()
        if self._console.is_terminal:
            columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn())
            self._bar = Bar(*columns, TextColumn("{task.fields[detail]}"), console=self._console, transient=True)
            self._task = self._bar.add_task("", total=1.0, detail="")

    def __enter__(self) -> ProgressLine:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __call__(self, stage: str, share: float, detail: str = "") -> None:
        """Shows the stage, the share of it that is done, and some further words."""
        if self._bar is not None:
            self._bar.start()
            self._bar.update(self._task, description=stage, completed=share, detail=detail)
            if share >= 1:
                self.close()
            return
        now = time.monotonic()
        if share >= 1 or now - self._last >= self.every_seconds:
            self._last = now
            self.say(f"{stage}: {100 * share:.0f} %  {detail}".rstrip())

    def say(self, text: str) -> None:
        """A line of its own, above the bar."""
        self._console.print(text, highlight=False, markup=False, soft_wrap=True)

    def end(self, text: str) -> None:
        """Takes the bar away and says how the stage ended."""
        self.close()
        self.say(text)

    def close(self) -> None:
        """Takes the bar away."""
        if self._bar is not None:
            self._bar.stop()


class _Lines(logging.Handler):
    """Passes every message on as a line of text."""

    def __init__(self, line: ProgressLine, render: Callable[[str], str]):
        super().__init__()
        self.line, self.render = line, render

    def emit(self, record: logging.LogRecord) -> None:
        prefix = "note: " if record.levelno == logging.WARNING else ""
        self.line.say(prefix + self.render(record.getMessage()))


@contextmanager
def shown_messages(render: Callable[[str], str] = str) -> Iterator[ProgressLine]:
    """Inside, what the library logs is shown on standard error, above the progress line that is given.

    Args:
        render: turns a message of the library into what is shown, as ``Command.render`` does.
    """
    with ProgressLine() as line:
        handler, loggers = _Lines(line, render), [logging.getLogger(name) for name in ("som", "flow")]
        before = [(logger.level, logger.propagate) for logger in loggers]
        for logger in loggers:
            logger.addHandler(handler)
            logger.setLevel(logging.INFO)
            logger.propagate = False
        try:
            yield line
        finally:
            for logger, (level, propagate) in zip(loggers, before, strict=True):
                logger.removeHandler(handler)
                logger.setLevel(level)
                logger.propagate = propagate
