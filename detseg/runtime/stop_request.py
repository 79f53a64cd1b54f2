"""A request to leave: the signals that make it, what is raised for it, and the exit code that answers it."""

from __future__ import annotations

import signal

SIGNALS = (signal.SIGTERM, signal.SIGINT)

EXIT_CODE = 75
"""EX_TEMPFAIL of sysexits.h: not done, nothing wrong, go on later."""


class Interrupted(Exception):
    """The process was asked to leave; ``signal`` says by which signal."""

    def __init__(self, number: int) -> None:
        super().__init__(signal.Signals(number).name)
        self.signal = number
