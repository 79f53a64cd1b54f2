"""A full disk at each file that is written: named with its need, nothing lost, and the next start continues."""

from __future__ import annotations

import errno
import json
import os
import re
import resource
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import detseg.checkpoints.manager as manager
import detseg.runtime.files as files
import detseg.training.run_results as results_module
from detseg.checkpoints.rotation import latest_checkpoint
from detseg.cli import main
from detseg.runtime.files import WriteError, write_bytes
from detseg.runtime.folder_lock import LOCK
from detseg.training.trainer import Trainer
from tests.faults.conftest import Runs

NAME = "R5 full disk at one file: named with need and remedy, continued to the same files"
WRITES = (
    "config.toml", "split.json", "best.safetensors", "metrics.json", "metrics.jsonl", "last.safetensors", "curves.png",
    "finished.json",
)  # fmt: skip
"""Files of a run in the order in which they are written."""
IMAGES = ("curves.png",)
QUICK = ("best.safetensors",)


def full_at(name: str, log: Path | None = None, number: int = errno.ENOSPC) -> Callable[[], None]:
    """Let every write of the file ``name`` fail in this process; what it prints goes to ``log``."""

    def before() -> None:
        real = files.tempfile.mkstemp

        def mkstemp(**given: Any) -> Any:
            if given["prefix"] == f".{name}.":
                raise OSError(number, os.strerror(number))
            return real(**given)

        manager.PAUSES = (0.01,)
        files.tempfile.mkstemp = mkstemp  # type: ignore[assignment]
        results_module.plot_curves = lambda rows, path: write_bytes(path, b"curves") or True  # type: ignore[func-returns-value]
        if log is not None:
            sys.stdout = sys.stderr = log.open("w", buffering=1)

    return before


def problem_of(name: str, run: Path, code: int, text: str) -> str:
    """What is wrong with the end of a run whose file ``name`` found no space; empty if nothing."""
    if code != (0 if name in IMAGES else 1):
        return f"exit code {code}"
    if not re.search(rf"{re.escape(name)}: no space left on the disk \(.* needed, .* free\)", text):
        return f"message: {text}"
    remedy = "repeat the command" if name == "config.toml" else f"train --resume {run}"
    if not any(f"{name}: " in line and remedy in line for line in text.splitlines()):
        return f"remedy: {text}"
    if (run / "config.toml").is_file():
        latest_checkpoint(run)
    left = [path.name for path in run.glob(".*")] if run.is_dir() else []
    return f"left: {left}" if left or list(run.glob("*.damaged")) else ""


def fails_well(name: str, runs: Runs, folder: Path) -> str:
    run, log = folder / name, folder / f"{name}.log"
    code = runs.start(run, "--checkpoint-every", "2", before=full_at(name, log))
    problem = problem_of(name, run, code, log.read_text())
    if problem or (runs.resume(run) == 0 and runs.ends_equal(run) and (run / "finished.json").is_file()):
        return problem
    return "not continued to the same files"


@pytest.mark.parametrize("name", QUICK)
def test_a_file_that_finds_no_space(name: str, runs: Runs, tmp_path: Path) -> None:
    assert fails_well(name, runs, tmp_path) == ""


@pytest.mark.faults
def test_each_file_of_a_run(runs: Runs, tmp_path: Path, tally: Any) -> None:
    problems = {name: problem for name in WRITES if (problem := fails_well(name, runs, tmp_path))}
    print(problems)
    tally(NAME, len(WRITES) - len(problems), len(WRITES))


@pytest.mark.faults
def test_control_without_the_second_chance_best_loses_the_epoch(runs: Runs, tmp_path: Path) -> None:
    """As before: an error of best.safetensors ended the run, and the epoch before it was in no checkpoint."""

    def before() -> None:
        full_at("best.safetensors")()
        Trainer._save = lambda self, *, retry=False: None  # type: ignore[method-assign]

    run = tmp_path / "run"
    assert runs.start(run, before=before) == 1
    assert latest_checkpoint(run)[0] is None
    shutil.rmtree(run)
    assert runs.start(run, before=full_at("best.safetensors")) == 1
    checkpoint, _ = latest_checkpoint(run)
    assert checkpoint is not None
    assert (checkpoint.position.epoch, checkpoint.position.micro_batches) == (0, 6), "all steps, before the evaluation"


@pytest.mark.faults
@pytest.mark.usefixtures("no_images")
@pytest.mark.parametrize("name", ["predictions.json", "metrics.jsonl"])
def test_a_detector(
    name: str, parts: Path, small: tuple[str, ...], tmp_path: Path, monkeypatch: Any, capsys: Any, tally: Any
) -> None:
    words = ["train", str(parts), *small, "--epochs", "2", "--output"]
    assert main([*words, str(tmp_path / "straight")]) == 0
    with monkeypatch.context() as patch:
        refuse(name, patch)
        assert main([*words, str(tmp_path / "run")]) == 1
    assert f"{name}: no space left on the disk (" in capsys.readouterr().err
    assert main(["train", "--resume", str(tmp_path / "run")]) == 0
    names = ("last.safetensors", "best.safetensors", "metrics.json", "predictions.json")
    equal = [(tmp_path / "straight" / file).read_bytes() == (tmp_path / "run" / file).read_bytes() for file in names]
    tally(NAME, int(all(equal)), 1)


@pytest.mark.parametrize("share", [0.2, pytest.param(0.02, marks=pytest.mark.faults)])
def test_a_limit_of_the_kernel(share: float, runs: Runs, tmp_path: Path, tally: Any) -> None:
    """Files above a size fail with EFBIG: last.safetensors, or also best.safetensors, which is a fifth of it."""
    run, log = tmp_path / "run", tmp_path / "log"
    size = (runs.uninterrupted / "best.safetensors").stat().st_size
    limit = int(size * (1 + share)) if share > 0.1 else size // 2

    def before() -> None:
        full_at("nothing", log)()
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))

    assert runs.start(run, before=before) == 1
    text = log.read_text().splitlines()[-1]
    assert ("best" if share < 0.1 else "last") + ".safetensors: larger than this process may write (" in text
    assert "MB needed, see ulimit -f); there is no checkpoint yet. Free space, then continue with: " in text
    assert "is intact" not in log.read_text()
    tally(NAME, int(runs.resume(run) == 0 and runs.ends_equal(run)), 1)


def refuse(name: str, monkeypatch: pytest.MonkeyPatch, number: int = errno.ENOSPC) -> None:
    """Let every write of the file ``name`` fail in this test."""
    real = files.tempfile.mkstemp

    def mkstemp(**given: Any) -> Any:
        if given["prefix"] == f".{name}.":
            raise OSError(number, os.strerror(number))
        return real(**given)

    monkeypatch.setattr(files.tempfile, "mkstemp", mkstemp)


def test_predict(runs: Runs, tmp_path: Path, monkeypatch: Any, capsys: Any, tally: Any) -> None:
    """predictions.json keeps its old content; images that find no space do not lose the predictions."""
    output = tmp_path / "out"
    words = ["predict", str(runs.uninterrupted), str(runs.images / "dark"), "--output", str(output), "--device", "cpu"]
    output.mkdir()
    (output / "predictions.json").write_text("before")
    with monkeypatch.context() as patch:
        refuse("predictions.json", patch)
        assert main([*words, "--no-draw"]) == 1
        assert "predictions.json: no space left on the disk (" in capsys.readouterr().err
        assert (output / "predictions.json").read_text() == "before"
    with monkeypatch.context() as patch:
        refuse("3.png.jpg", patch)
        assert main(words) == 1
        captured = capsys.readouterr()
        assert "3.png.jpg: no space left on the disk (" in captured.out + captured.err
        assert "no more images are drawn" in captured.out + captured.err
    assert len(json.loads((output / "predictions.json").read_text())) == 8
    assert len(list((output / "images").iterdir())) == 3
    assert main(words) == 0
    tally(NAME, 2 * int(len(list((output / "images").iterdir())) == 8), 2)


def test_evaluate(runs: Runs, tmp_path: Path, monkeypatch: Any, capsys: Any, tally: Any) -> None:
    words = ["evaluate", str(runs.uninterrupted), "--output", str(tmp_path / "out"), "--device", "cpu"]
    with monkeypatch.context() as patch:
        refuse("metrics.json", patch, errno.EDQUOT)
        assert main(words) == 1
        assert "metrics.json: the disk quota is used up (1 kB needed, " in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
    tally(NAME, int(main(words) == 0), 1)


@pytest.mark.parametrize("name", ["an image", "instances_train.json", "data.yaml", LOCK])
def test_convert(name: str, parts: Path, tmp_path: Path, monkeypatch: Any, capsys: Any, tally: Any) -> None:
    """Nothing of a conversion stays that found no space, so the same command works afterwards."""
    output = tmp_path / "out"
    words = ["convert", str(parts), "--output", str(output), "--to", "yolo" if name == "data.yaml" else "coco"]

    def half_copied(source: Path, target: Path) -> None:
        target.write_bytes(source.read_bytes()[:100])
        if "3" in target.stem:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def no_lock(descriptor: int, content: bytes) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        if name == "an image":
            patch.setattr(files.shutil, "copyfile", half_copied)
        elif name == LOCK:
            patch.setattr(os, "write", no_lock)
        else:
            refuse(name, patch)
        assert main(words) == 1
        assert "no space left on the disk (" in capsys.readouterr().err
    assert not output.exists()
    tally(NAME, int(main(words) == 0 and not list(output.glob(".*"))), 1)


def test_a_conversion_that_was_killed_is_repeated(parts: Path, tmp_path: Path) -> None:
    output = tmp_path / "out"
    (output / ".detseg-part" / "images").mkdir(parents=True)
    (output / ".detseg-part" / "images" / "half.png").write_bytes(b"half")
    (output / LOCK).write_text(json.dumps({"host": "another", "process": 1}))
    os.utime(output / LOCK, (0, 0))
    assert main(["convert", str(parts), "--output", str(output), "--to", "voc"]) == 0
    assert not list(output.glob(".*"))
    assert main(["convert", str(parts), "--output", str(output), "--to", "voc"]) == 1, "it is not empty any more"


def test_the_error_is_one_for_all_writes(tmp_path: Path, monkeypatch: Any) -> None:
    for number in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EROFS):
        with monkeypatch.context() as patch:
            refuse("a", patch, number)
            with pytest.raises(WriteError) as caught:
                write_bytes(tmp_path / "a", b"x" * 20_000_000)
        error = caught.value
        assert error.errno == number
        assert str(error).startswith(f"{tmp_path / 'a'}: ")
        assert ("20 MB needed" in str(error)) == (number not in (errno.EIO, errno.EROFS))
    assert list(tmp_path.iterdir()) == []
    refuse("a", monkeypatch, errno.EACCES)
    with pytest.raises(PermissionError):
        write_bytes(tmp_path / "a", b"control: other errors stay what they are")
