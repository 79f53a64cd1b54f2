"""Signals, exception and exit code for a graceful shutdown."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

SIGNALS = (signal.SIGTERM, signal.SIGINT)

EXIT_CODE = 75
"""EX_TEMPFAIL of sysexits.h: not finished, no error, continue later."""


class Interrupted(Exception):
    """The process received a signal to stop; ``signal`` is its number."""

    def __init__(self, number: int) -> None:
        super().__init__(signal.Signals(number).name)
        self.signal = number


class StopRequest:
    """A request to stop this process, made by SIGTERM or SIGINT.

    The first signal is stored, and raised as :class:`Interrupted` where the caller checks (:meth:`check`) or waits
    for data (:meth:`interruptible`). The second signal ends the process immediately.

    Attributes:
        signal_number: number of the first signal; 0 if there was none.
    """

    def __init__(self) -> None:
        self.signal_number = 0
        self._may_raise = False

    def check(self) -> None:
        """Raise :class:`Interrupted` if a stop was requested."""
        if self.signal_number:
            raise Interrupted(self.signal_number)

    def interruptible(self, iterator: Iterator[Any], single_process: bool = True) -> Iterator[Any]:
        """Yield the items of ``iterator``; a signal while waiting for the next item is raised immediately.

        While the process waits, no work is in progress that could be interrupted halfway. With several processes (not
        ``single_process``), no process may stop on its own: they agree on it after the next forward pass.
        """
        if not single_process:
            yield from iterator
            return
        while True:
            self.check()
            self._may_raise = True
            try:
                self.check()  # a signal between the two lines above
                item = next(iterator, _END)
            finally:
                self._may_raise = False
            if item is _END:
                return
            yield item

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self.signal_number:
            os._exit(128 + number)
        self.signal_number = number
        name = signal.Signals(number).name
        notice = "saving a checkpoint, then exiting; press Ctrl-C again to exit immediately"
        os.write(2, f"\n{name}: {notice}\n".encode())
        if self._may_raise:
            self._may_raise = False
            raise Interrupted(number)


_END = object()


@contextmanager
def catching_signals() -> Iterator[StopRequest]:
    """Catch SIGTERM and SIGINT while the block runs; outside the main thread, where Python cannot, do nothing."""
    stop_request = StopRequest()
    if threading.current_thread() is not threading.main_thread():
        yield stop_request
        return
    previous_handlers = {number: signal.signal(number, stop_request._handle) for number in SIGNALS}
    try:
        yield stop_request
    finally:
        for number, handler in previous_handlers.items():
            signal.signal(number, handler)
