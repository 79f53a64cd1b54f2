"""A run is resumed on its own data with its own number of threads; what has changed is named."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from detseg.checkpoints.checkpoint import load_checkpoint, save_checkpoint
from detseg.cli import main
from detseg.training.resume import threads_line

pytestmark = pytest.mark.usefixtures("no_images")


def test_an_image_that_changed_is_named(parts: Path, train: Any, small: Any, tmp_path: Path, capsys: Any) -> None:
    data, run = tmp_path / "data", tmp_path / "run"
    shutil.copytree(parts, data)
    train(data, run)
    content = {path.name: path.read_bytes() for path in run.iterdir() if path.is_file()}
    image = sorted((data / "train").iterdir())[1]
    image.write_bytes(image.read_bytes() + b"\0")
    assert main(["train", "--resume", str(run), "--epochs", "2"]) == 1
    message = capsys.readouterr().err
    assert f"{run} was trained on other data: train: the file of 1 image: {image.name}. Nothing was written." in message
    assert {path.name: path.read_bytes() for path in run.iterdir() if path.is_file()} == content
    image.write_bytes(image.read_bytes()[:-1])
    assert main(["train", "--resume", str(run), "--epochs", "2"]) == 0, "control: the same bytes, at another time"


def test_the_number_of_threads_is_recorded_and_named(tmp_path: Path) -> None:
    model = torch.nn.Linear(2, 2)
    path = tmp_path / "last.safetensors"
    save_checkpoint(path, model, description={}, optimizer=torch.optim.SGD(model.parameters(), 0.1))
    checkpoint = load_checkpoint(path)
    threads = torch.get_num_threads()
    assert checkpoint.threads == threads
    assert threads_line(checkpoint, "cpu") == []
    torch.set_num_threads(threads + 2)
    try:
        (line,) = threads_line(checkpoint, "cpu")
        assert f"now {threads + 2}: the last bits" in line
        assert line.endswith(f"set OMP_NUM_THREADS={threads}")
        assert threads_line(checkpoint, "cuda") == []
    finally:
        torch.set_num_threads(threads)
    save_checkpoint(path, model, description={})
    assert load_checkpoint(path).threads == 0, "weights for inference state none, like files of earlier versions"


def test_threads_change_the_last_bits() -> None:
    """Control: the same sum with one and with several threads; not every machine shows it."""
    values = torch.rand(3_000_001, generator=torch.Generator().manual_seed(0)) - 0.5
    sums = set()
    threads = torch.get_num_threads()
    try:
        for number in (1, 2, 3, 4, 7):
            torch.set_num_threads(number)
            sums.add(float(values.sum()))
    finally:
        torch.set_num_threads(threads)
    if len(sums) == 1:
        pytest.skip("the sums are equal on this machine")
    assert max(sums) - min(sums) < 1e-2
