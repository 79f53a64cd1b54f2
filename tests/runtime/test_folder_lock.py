"""A folder belongs to one process at a time, on any file system, and a lock that nobody holds is taken over."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from detseg.errors import DataError
from detseg.runtime import folder_lock
from detseg.runtime.folder_lock import LOCK, STALE, UNWRITTEN, FolderLock
from detseg.runtime.run_folder import RunFolder, locked, new_run_folder


@pytest.fixture(autouse=True)
def no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(folder_lock, "SETTLE", 0.05)


def test_a_second_process_is_refused_until_the_first_releases(tmp_path: Path) -> None:
    with locked(tmp_path / "run") as lock:
        with pytest.raises(DataError, match=rf"run is in use \(process {os.getpid()} on .*choose another --output"):
            FolderLock(tmp_path / "run").acquire()
        lock.check()
        (tmp_path / "run" / "file").write_text("x")
    with locked(tmp_path / "run"):
        pass
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["file"]


def test_an_empty_folder_is_removed(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), locked(tmp_path / "run"):
        raise ZeroDivisionError
    assert not (tmp_path / "run").exists()


def test_the_lock_of_a_killed_process_is_taken_over(tmp_path: Path) -> None:
    code = (
        "import os, sys; from pathlib import Path; from detseg.runtime.folder_lock import FolderLock; "
        "FolderLock(Path(sys.argv[1])).acquire(); os._exit(9)"
    )
    assert subprocess.run([sys.executable, "-c", code, tmp_path]).returncode == 9
    assert (tmp_path / LOCK).exists()
    with FolderLock(tmp_path) as lock:
        lock.check()


@pytest.mark.parametrize(
    ("change", "age", "is_free"),
    [
        ({}, 0, False),
        ({"process_start": "1"}, 0, True),  # the number was given to another process
        ({"host": "another-machine", "process": 1}, 0, False),
        ({"host": "another-machine", "process": 1}, STALE + 60, True),  # no heartbeat
        ({"process": None}, 0, False),
    ],
)
def test_which_locks_are_stale(tmp_path: Path, change: dict[str, Any], age: float, is_free: bool) -> None:
    first = FolderLock(tmp_path)
    first.acquire()
    first._stop.set()
    content = json.loads((tmp_path / LOCK).read_text())
    (tmp_path / LOCK).write_text(json.dumps(content | {"token": "another"} | change))
    os.utime(tmp_path / LOCK, (time.time() - age,) * 2)
    if is_free:
        FolderLock(tmp_path).acquire()
    else:
        with pytest.raises(DataError, match="is in use"):
            FolderLock(tmp_path).acquire()


def test_a_lock_that_is_just_being_written_is_not_stale(tmp_path: Path) -> None:
    (tmp_path / LOCK).write_text("")
    with pytest.raises(DataError, match="is in use"):
        FolderLock(tmp_path).acquire()
    os.utime(tmp_path / LOCK, (time.time() - UNWRITTEN - 5,) * 2)
    FolderLock(tmp_path).acquire()


def test_file_systems_without_hard_links(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*given: object) -> None:
        raise OSError(errno.EPERM, os.strerror(errno.EPERM))

    monkeypatch.setattr(os, "link", refused)
    with locked(tmp_path / "run"):
        with pytest.raises(DataError, match="is in use"):
            FolderLock(tmp_path / "run").acquire()
        assert [path.name for path in (tmp_path / "run").iterdir()] == [LOCK]
    assert not (tmp_path / "run").exists()


def test_the_heartbeat_touches_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(folder_lock, "HEARTBEAT", 0.02)
    with FolderLock(tmp_path):
        os.utime(tmp_path / LOCK, (0, 0))
        deadline = time.monotonic() + 5
        while (tmp_path / LOCK).stat().st_mtime == 0 and time.monotonic() < deadline:
            time.sleep(0.01)
        assert time.time() - (tmp_path / LOCK).stat().st_mtime < 60


def test_a_folder_that_vanishes_or_is_taken_over_is_an_error(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    with locked(folder) as lock:
        (folder / LOCK).unlink()
        folder.rmdir()
        with pytest.raises(DataError, match="removed or moved while it was in use"):
            lock.check()
    with locked(folder) as lock:
        (folder / LOCK).write_text(json.dumps({"token": "another"}))
        with pytest.raises(DataError, match="its lock file was replaced"):
            lock.check()
    assert (folder / LOCK).exists(), "the lock of another process is left alone"


def test_file_systems_without_flock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fcntl = pytest.importorskip("fcntl")

    def refused(*given: object) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(fcntl, "flock", refused)
    monkeypatch.setattr(fcntl, "lockf", refused)
    with locked(tmp_path / "run"), pytest.raises(DataError, match="is in use"):
        FolderLock(tmp_path / "run").acquire()


def take(folder: Path) -> int:
    try:
        FolderLock(folder).acquire()
    except DataError:
        return 0
    return 1


@pytest.mark.parametrize("stale", [False, True])
def test_of_many_only_one_gets_it(tmp_path: Path, stale: bool) -> None:
    for attempt in range(5):
        folder = tmp_path / str(attempt)
        folder.mkdir()
        if stale:
            (folder / LOCK).write_text(json.dumps({"host": "another-machine", "process": 1}))
            os.utime(folder / LOCK, (0, 0))
        with ThreadPoolExecutor(8) as pool:
            assert sum(pool.map(take, [folder] * 8)) == 1


def test_default_folders_are_numbered_and_exclusive(tmp_path: Path) -> None:
    base = tmp_path / "runs" / "demo"
    with ThreadPoolExecutor(8) as pool:
        folders = list(pool.map(lambda _: new_run_folder(None, base).path, range(8)))
    assert len(set(folders)) == 8
    assert {path.name for path in folders} == {"demo", *(f"demo-{number}" for number in range(2, 9))}


def test_a_named_folder_with_a_run_is_refused(tmp_path: Path) -> None:
    assert new_run_folder(str(tmp_path), tmp_path / "base").path == tmp_path
    RunFolder(tmp_path).last.write_bytes(b"")
    with pytest.raises(DataError, match=r"already contains a run; resume it with --resume"):
        new_run_folder(str(tmp_path), tmp_path / "base")


def test_the_run_of_a_checkpoint_file(tmp_path: Path) -> None:
    run = RunFolder.of(tmp_path)
    run.best.write_bytes(b"")
    assert RunFolder.of(run.best) == run
    names = [run.checkpoint(2), run.evaluation("val"), run.confusion("colour"), run.confusion()]
    assert [path.name for path in names] == [
        "last-2.safetensors", "evaluate-val", "confusion-colour.png", "confusion.png",
    ]  # fmt: skip


def test_temporary_files_of_killed_processes_are_removed(tmp_path: Path) -> None:
    left = [".last.safetensors.x1_bc2de.tmp", ".last.safetensors.spare", f"{LOCK}.abc"]
    for name in [*left, "last.safetensors", ".hidden", ".mine.tmp", ".x.spare"]:
        (tmp_path / name).write_bytes(b"x")
    with locked(tmp_path):
        assert {path.name for path in tmp_path.iterdir()} == {
            "last.safetensors",
            ".hidden",
            ".mine.tmp",
            ".x.spare",
            LOCK,
        }


def test_temporary_files_of_killed_predictions_are_removed(tmp_path: Path) -> None:
    """In the folder of written images, also in its folders, and in no other one."""
    name = ".a.jpg.abcdefgh.tmp"
    for part in ("images/deep", "images", "mine"):
        (tmp_path / part).mkdir(parents=True, exist_ok=True)
        (tmp_path / part / name).write_bytes(b"x")
    with locked(tmp_path, images="images"):
        assert [path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*.tmp")] == [f"mine/{name}"]


def test_no_space_for_the_lock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*given: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "write", full)
    with pytest.raises(OSError, match=r"no space left on the disk \(.* free\); free space"), locked(tmp_path / "run"):
        pass
    assert not (tmp_path / "run").exists()
