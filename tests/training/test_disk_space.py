"""The size of a run folder is estimated before anything is trained, and a disk that is too small is refused."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest

from detseg.cli import main
from detseg.training import disk_space

Capture = pytest.CaptureFixture[str]
ESTIMATE = re.compile(r"disk: about ([0-9.]+) MB in .* at the end \((\d) checkpoints? of .*\); .* are free")


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two classes of six images."""
    folder = tmp_path_factory.mktemp("images")
    rng = np.random.default_rng(0)
    for name in ("a", "b"):
        (folder / name).mkdir()
        for index in range(6):
            PIL.Image.fromarray(rng.integers(0, 255, (40, 50, 3), np.uint8)).save(folder / name / f"{index}.png")
    return folder


CLASSIFIER = ("--task", "classify", "--model", "mobilenet_v3_small", "--image-size", "40")
SETS = [
    pytest.param("classifier", (*CLASSIFIER, "--epochs", "2", "--ema", "0.9"), 2, marks=pytest.mark.slow),
    ("classifier", (*CLASSIFIER, "--epochs", "1", "--optimizer", "sgd", "--freeze", "stem"), 1),
    pytest.param("detector", ("--epochs", "2", "--optimizer", "sgd"), 2, marks=pytest.mark.slow),
]


@pytest.mark.parametrize(("kind", "options", "kept"), SETS)
def test_within_20_percent(
    kind: str, options: tuple[str, ...], kept: int, images: Path, parts: Path, small: tuple[str, ...], tmp_path: Path,
    capsys: Capture,
) -> None:  # fmt: skip
    data = images if kind == "classifier" else parts
    assert main(["train", str(data), "--output", str(tmp_path / "run"), *small, *options]) == 0
    found = ESTIMATE.search(capsys.readouterr().out)
    assert found is not None
    size = sum(path.stat().st_size for path in (tmp_path / "run").rglob("*") if path.is_file())
    assert 0.8 < float(found[1]) * 1e6 / size < 1.2
    assert int(found[2]) == kept
    best = (tmp_path / "run" / "best.safetensors").stat().st_size
    assert not 0.8 < kept * best / size < 1.2, "control: without the state of the optimizer it is far off"


@pytest.mark.parametrize(("free", "is_refused"), [(20_000_000, True), (10**9, False), (None, False)])
def test_a_disk_that_is_too_small(
    free: int | None, is_refused: bool, images: Path, small: tuple[str, ...], tmp_path: Path, capsys: Capture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setattr(disk_space, "free_space", lambda folder: free)
    trained: list[Path] = []

    def stop(trainer: Any, request: object) -> None:
        trained.append(trainer.folder)
        raise ZeroDivisionError

    monkeypatch.setattr("detseg.training.trainer.Trainer.run", stop)
    words = ["train", str(images), "--output", str(tmp_path / "run"), *small, *CLASSIFIER]
    if not is_refused:
        with pytest.raises(ZeroDivisionError):
            main(words)
        assert trained, "control"
        return
    assert main(words) == 1
    message = capsys.readouterr().err
    assert re.search(r"run: the run needs about 4\d\.\d MB of disk space \(1 checkpoint of 18\.\d MB", message)
    assert "but 20 MB are free; free space, choose --output on another disk, or lower --keep-checkpoints" in message
    assert not trained
    assert not (tmp_path / "run").exists()
