"""Lock a folder for one process, also on file systems without flock and for several machines."""

from __future__ import annotations

import json
import os
import platform
import threading
import time
import uuid
from pathlib import Path
from types import TracebackType
from typing import Any

from detseg.errors import DataError
from detseg.runtime.files import write_errors

LOCK = ".lock"
"""Name of the lock file in the folder."""

HEARTBEAT = 30.0
"""Seconds between two updates of the lock file's time."""

STALE = 300.0
"""Seconds after which a lock without a heartbeat belongs to nobody."""

UNWRITTEN = 10.0
"""Seconds after which a lock file without content belongs to nobody: its process ended before it wrote the content."""

SETTLE = 0.2
"""Seconds between taking over a stale lock and looking whether another process did the same."""


class FolderLock:
    """The right to write into a folder: an exclusively created file with host, process and start time.

    The file is touched every ``HEARTBEAT`` seconds. A lock without a heartbeat for ``STALE`` seconds, or of a process
    of this host that has ended, is taken over. Only file creation is used, so it works where flock does not (NFS,
    FUSE); the clocks of the machines may differ by a minute or two.
    """

    def __init__(self, folder: Path) -> None:
        self.path = folder / LOCK
        self._token = uuid.uuid4().hex
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    def acquire(self) -> None:
        """Take the lock.

        Raises:
            DataError: another process uses the folder; the message states which one.
            OSError: the lock file cannot be written.
        """
        try:
            self._create()
        except FileExistsError:
            self._take_over()
        self._thread = threading.Thread(target=self._beat, daemon=True, name="folder lock")
        self._thread.start()

    def check(self) -> None:
        """Raise DataError if the folder is gone, or another process has taken over the lock."""
        if self._owner().get("token") != self._token:
            gone = "the folder was removed or moved" if not self.path.parent.is_dir() else "its lock file was replaced"
            raise DataError(
                f"{self.path.parent}: {gone} while it was in use; nothing more is written. Bring the folder back and "
                "continue with --resume"
            )

    def release(self) -> None:
        """Give the lock back. Does nothing if it is no longer held."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join()
        if self._owner().get("token") == self._token:
            self.path.unlink(missing_ok=True)

    def __enter__(self) -> FolderLock:
        self.acquire()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()

    def _create(self) -> None:
        """Create the lock file with its content in one step where the file system has hard links.

        Raises:
            FileExistsError: there is one.
        """
        temporary = self.path.with_name(f"{LOCK}.{self._token}")
        self._write(temporary, os.O_CREAT | os.O_EXCL | os.O_WRONLY)
        try:
            os.link(temporary, self.path)
        except FileExistsError:
            raise
        except OSError:  # no hard links
            self._write(self.path, os.O_CREAT | os.O_EXCL | os.O_WRONLY)
        finally:
            temporary.unlink(missing_ok=True)

    def _write(self, path: Path, flags: int) -> None:
        content = {
            "token": self._token,
            "host": platform.node(),
            "process": os.getpid(),
            "process_start": _process_start(os.getpid()),
            "start": time.strftime("%Y-%m-%d %H:%M:%S"),
        }
        with write_errors(path):
            descriptor = os.open(path, flags, 0o666)
            try:
                os.write(descriptor, json.dumps(content).encode())
            except OSError:
                path.unlink(missing_ok=True)  # a lock without content would hold up the next process
                raise
            finally:
                os.close(descriptor)

    def _owner(self) -> dict[str, Any]:
        """The content of the lock file; empty if there is none, or if it is being written."""
        try:
            content = json.loads(self.path.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return {}
        return content if isinstance(content, dict) else {}

    def _take_over(self) -> None:
        """Replace a stale lock.

        Raises:
            DataError: it is not stale, or another process was faster.
        """
        owner = self._owner()
        if not _is_stale(self.path, owner):
            raise DataError(_in_use(self.path.parent, owner))
        self._write(self.path, os.O_CREAT | os.O_TRUNC | os.O_WRONLY)
        time.sleep(SETTLE)  # of several processes that take it over, the last one to write has it
        owner = self._owner()
        if owner.get("token") != self._token:
            raise DataError(_in_use(self.path.parent, owner))

    def _beat(self) -> None:
        while not self._stop.wait(HEARTBEAT):
            try:
                os.utime(self.path)
            except FileNotFoundError:
                return  # removed; ``check`` reports it
            except OSError:
                continue  # the next one may succeed


def _in_use(folder: Path, owner: dict[str, Any]) -> str:
    process = f"process {owner.get('process', '?')} on {owner.get('host', '?')}, since {owner.get('start', '?')}"
    return (
        f"{folder} is in use ({process}); wait until it ends, or choose another --output. If that process does not "
        f"exist any more, remove {folder / LOCK}"
    )


def _is_stale(path: Path, owner: dict[str, Any]) -> bool:
    """Whether the owner of a lock file has ended, or has not updated it for too long."""
    try:
        age = time.time() - path.stat().st_mtime
    except FileNotFoundError:
        return True
    if age > (STALE if owner else UNWRITTEN):
        return True
    if owner.get("host") != platform.node() or not isinstance(owner.get("process"), int):
        return False
    number = int(owner["process"])
    return not _is_alive(number) or _process_start(number) != owner.get("process_start")


def _is_alive(process: int) -> bool:
    if os.name == "nt":
        return True  # unknown: on Windows os.kill would end it
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except OSError:  # it belongs to another user
        return True
    return True


def _process_start(process: int) -> str:
    """Start time of a process in clock ticks since boot, so that a reused number is recognized; "" if unknown."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[19]
    except (OSError, IndexError):
        return ""
