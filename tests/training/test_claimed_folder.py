"""A run folder belongs to one run: in use it is refused by name, and one that vanishes is an error."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from detseg.cli import main
from detseg.runtime.folder_lock import LOCK, FolderLock
from detseg.training import claimed_folder, fit, trainer

pytestmark = pytest.mark.usefixtures("no_images")

Train = Callable[..., Path]


@pytest.fixture(scope="module")
def run(parts: Path, train: Train, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return train(parts, tmp_path_factory.mktemp("runs") / "run")


def test_a_finished_run_holds_no_lock(run: Path) -> None:
    assert not (run / LOCK).exists()


@pytest.mark.parametrize("command", ["train", "resume", "evaluate", "predict"])
def test_a_folder_in_use_is_refused(
    command: str, run: Path, parts: Path, small: tuple[str, ...], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = {"resume": run, "evaluate": run / "evaluate-val"}.get(command, tmp_path / "folder")
    folder.mkdir(exist_ok=True)
    arguments = {
        "train": ["train", str(parts), "--output", str(folder), *small],
        "resume": ["train", "--resume", str(run), "--epochs", "2"],
        "evaluate": ["evaluate", str(run)],
        "predict": ["predict", str(run), str(parts / "val"), "--output", str(folder)],
    }[command]
    with FolderLock(folder):
        before = sorted(path.name for path in folder.iterdir())
        assert main(arguments) == 1
        assert f"{folder} is in use (process {os.getpid()} on" in capsys.readouterr().err
        assert sorted(path.name for path in folder.iterdir()) == before
    assert main(arguments) == 0, "control: it is free again"


def test_an_evaluation_is_refused_before_it_is_computed(
    run: Path, tmp_path: Path, monkeypatch: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("detseg.training.run_evaluation.load", lambda path: 1 / 0)
    words = ["evaluate", str(run), "--output", str(tmp_path)]
    with FolderLock(tmp_path):
        assert main(words) == 1
        assert "is in use" in capsys.readouterr().err
    with pytest.raises(ZeroDivisionError):
        main(words)  # control


def test_default_folders_of_two_runs(parts: Path, small: tuple[str, ...], tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.chdir(tmp_path)
    name = f"runs/{parts.name}-{small[1]}"
    Path(name).mkdir(parents=True)  # another run has just picked it
    assert main(["train", str(parts), *small]) == 0
    assert {path.name for path in Path("runs").iterdir()} == {Path(name).name, f"{Path(name).name}-2"}


def test_a_run_that_cannot_start_leaves_no_folder(parts: Path, small: tuple[str, ...], tmp_path: Path) -> None:
    given = ["train", str(parts), "--output", str(tmp_path / "run"), *small, "--weights", str(tmp_path / "missing.pth")]
    assert main(given) == 1
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(("module", "name"), [(trainer, "line"), (fit, "metrics_text")])
def test_a_folder_that_vanishes_ends_the_run(
    module: Any, name: str, parts: Path, small: tuple[str, ...], tmp_path: Path, monkeypatch: Any,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    """After an epoch, and before the results are written."""
    real, run = getattr(module, name), tmp_path / "run"

    def moved(*given: Any) -> str:
        run.rename(tmp_path / "elsewhere")
        return real(*given)

    monkeypatch.setattr(module, name, moved)
    assert main(["train", str(parts), "--output", str(run), *small]) == 1
    assert "the folder was removed or moved while it was in use" in capsys.readouterr().err
    assert not run.exists(), "no half folder is made in its place"


def test_a_run_that_ended_while_its_folder_was_chosen_is_kept(
    parts: Path, small: tuple[str, ...], tmp_path: Path, monkeypatch: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    run, real = tmp_path / "run", claimed_folder.locked

    def locked_late(folder: Path) -> Any:
        folder.mkdir()
        (folder / "last.safetensors").write_bytes(b"of another run")
        return real(folder)

    monkeypatch.setattr(claimed_folder, "locked", locked_late)
    assert main(["train", str(parts), "--output", str(run), *small]) == 1
    assert "already contains a run; resume it" in capsys.readouterr().err
    assert [path.name for path in run.iterdir()] == ["last.safetensors"]
