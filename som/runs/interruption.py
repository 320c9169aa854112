"""What ends a run before its last step, without losing the work done.

Library functions never touch signals: they ask a function ``stop`` after every step, which a command makes here.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

Stop = Callable[[], int]
"""Asked after every step: 0 to go on, or the number of the signal (any other number, without signals) to stop by."""


class Interrupted(Exception):
    """The run was asked to stop; everything up to ``step`` is in the checkpoint."""

    def __init__(self, step: int, signal_number: int):
        super().__init__(f"stopped after step {step}")
        self.step, self.signal_number = step, signal_number


class NonFiniteLossError(RuntimeError):
    """A term of the objective or a parameter became NaN or infinite; the last checkpoint is from before that."""


@contextmanager
def stop_signals() -> Iterator[Stop]:
    """Collects SIGINT and SIGTERM instead of dying from them, so that a step can be finished and saved.

    A second signal acts at once. Outside the main thread signals cannot be caught and nothing is changed.
    """
    received: list[int] = []
    previous = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    def handle(number: int, _frame: object) -> None:
        received.append(number)
        signal.signal(number, previous[signal.Signals(number)])

    with _handled(handle, signal.SIGINT, signal.SIGTERM):
        yield lambda: received[0] if received else 0


@contextmanager
def sigterm_as_keyboard_interrupt() -> Iterator[None]:
    """SIGTERM raises ``KeyboardInterrupt(number)``, for work that may be cut off anywhere."""

    def handle(number: int, _frame: object) -> None:
        raise KeyboardInterrupt(number)

    with _handled(handle, signal.SIGTERM):
        yield


@contextmanager
def _handled(handle: Callable[[int, object], None], *numbers: signal.Signals) -> Iterator[None]:
    """Handles the signals, and gives them back at the end."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    previous = {number: signal.getsignal(number) for number in numbers}
    for number in numbers:
        signal.signal(number, handle)
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
