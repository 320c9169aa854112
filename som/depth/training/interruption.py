"""Stopping a run by a signal without losing the work done."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager


class Interrupted(Exception):
    """The run was asked to stop by a signal; everything up to ``step`` is in the checkpoint."""

    def __init__(self, step: int, signal_number: int):
        super().__init__(f"stopped after step {step}")
        self.step, self.signal_number = step, signal_number


@contextmanager
def stop_signals() -> Iterator[list[int]]:
    """Collects SIGINT and SIGTERM instead of dying from them, so that a step can be finished and saved.

    A second signal acts at once. Outside the main thread signals cannot be caught and nothing is changed.
    """
    received: list[int] = []
    if threading.current_thread() is not threading.main_thread():
        yield received
        return
    previous = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    def handle(number: int, _frame) -> None:
        received.append(number)
        signal.signal(number, previous[number])

    for number in previous:
        signal.signal(number, handle)
    try:
        yield received
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
