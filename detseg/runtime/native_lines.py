"""Catch what libraries in C write to the standard error stream, such as libjpeg's warnings, which name no file."""

from __future__ import annotations

import os
import tempfile
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Any, TypeVar

_STDERR = 2
_T = TypeVar("_T")


class _Catcher:
    """The state of a process: the stream is redirected to a file while any thread is in a call."""

    def __init__(self) -> None:
        self.idle = threading.Condition()
        self.users, self.shared, self.kept = 0, False, -1
        self.file: Any = None

    def enter(self) -> int:
        """Start a call; returns the size of what is caught so far. The lock must be held."""
        if self.users == 0:
            self.shared = False
            try:
                self.file = self.file or tempfile.TemporaryFile()  # noqa: SIM115
                self.kept = os.dup(_STDERR)
                os.dup2(self.file.fileno(), _STDERR)
            except OSError:  # the stream is closed, or there is no folder for the file: nothing is caught
                self.close()
        self.users += 1
        self.shared |= self.users > 1
        return self.size()

    def leave(self) -> str:
        """End a call; returns all that was caught if it was the last one. The lock must be held."""
        self.users -= 1
        if self.users:
            return ""
        self.idle.notify_all()
        if self.kept < 0:
            return ""
        os.dup2(self.kept, _STDERR)
        self.close()
        if not self.size():
            return ""
        self.file.seek(0)
        text = self.file.read(2**16).decode("utf-8", "replace")
        self.file.seek(0)
        self.file.truncate()
        return str(text)

    def size(self) -> int:
        return os.fstat(self.file.fileno()).st_size if self.file is not None else 0

    def close(self) -> None:
        if self.kept >= 0:
            with suppress(OSError):
                os.close(self.kept)
        self.kept = -1


_catcher = _Catcher()


def with_native_lines(function: Callable[[], _T]) -> tuple[_T, list[str]]:
    """The result of ``function``, and the different lines that it wrote to file descriptor 2.

    Several threads may call this at once. If lines appear while they do, ``function`` is called again, alone, so that
    they are assigned to the right call.
    """
    catcher = _catcher
    text = ""
    with catcher.idle:
        before = catcher.enter()
    try:
        result = function()
    finally:
        with catcher.idle:
            grew, shared = catcher.size() > before, catcher.shared
            text = catcher.leave()
    if grew and shared:
        with catcher.idle:
            catcher.idle.wait_for(lambda: not catcher.users)
            catcher.enter()
            try:
                function()
            finally:
                text = catcher.leave()
    return result, list(dict.fromkeys(text.splitlines())) if grew else []


def _after_fork() -> None:
    """A forked process gets a state of its own: a thread of its parent may be in a call."""
    global _catcher
    if _catcher.kept >= 0:
        os.dup2(_catcher.kept, _STDERR)
        _catcher.close()
    _catcher = _Catcher()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
