"""SIGTERM and SIGINT as a request: what is begun is finished and saved, then the process leaves with its own code."""

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
"""EX_TEMPFAIL of sysexits.h: not done, nothing wrong, go on later."""


class Interrupted(Exception):
    """The process was asked to leave; ``signal`` says by which signal."""

    def __init__(self, number: int) -> None:
        super().__init__(signal.Signals(number).name)
        self.signal = number


class StopRequest:
    """Whether somebody asked this process to leave.

    The first signal is remembered, and raised as :class:`Interrupted` where the caller looks (:meth:`check`) or waits
    for data (:meth:`waiting`). The second ends the process at once.
    """

    def __init__(self) -> None:
        self.asked = 0
        self._may_raise = False

    def check(self) -> None:
        """Raise :class:`Interrupted` if somebody asked."""
        if self.asked:
            raise Interrupted(self.asked)

    def waiting(self, iterator: Iterator[Any], alone: bool = True) -> Iterator[Any]:
        """The items of ``iterator``; a signal while waiting for the next one is raised there, not after it.

        Nothing is half done while the process waits, so nothing can be broken off. Of several processes (not ``alone``)
        none may leave by itself: they agree on it after the next forward pass.
        """
        if not alone:
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
        if self.asked:
            os._exit(128 + number)
        self.asked = number
        name = signal.Signals(number).name
        os.write(2, f"\n{name}: saving, then leaving (once more: leave at once)\n".encode())
        if self._may_raise:
            self._may_raise = False
            raise Interrupted(number)


_END = object()


@contextmanager
def catching_signals() -> Iterator[StopRequest]:
    """Catch SIGTERM and SIGINT while the block runs; not outside the main thread, where Python cannot."""
    stop_request = StopRequest()
    if threading.current_thread() is not threading.main_thread():
        yield stop_request
        return
    before = {number: signal.signal(number, stop_request._handle) for number in SIGNALS}
    try:
        yield stop_request
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
