"""Checkpoints: equal after loading, atomic writes, no pickle, clear errors for other files."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from torch import nn

from detseg.checkpoints.checkpoint import Position, load, load_checkpoint, restore, save_checkpoint
from detseg.engine.optim import build_optimizer
from detseg.errors import DataError


class Own(nn.Module):
    """A user-defined module with tied weights and a channels-last kernel, which safetensors does not accept as is."""

    def __init__(self, width: int = 4) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, width, 3)
        self.norm = nn.BatchNorm2d(width)
        self.first = nn.Linear(width, width)
        self.second = nn.Linear(width, width)
        self.second.weight = self.first.weight

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.second(self.first(self.norm(self.conv(x)).mean((2, 3))))  # type: ignore[no-any-return]


def trained(steps: int = 2) -> tuple[Own, torch.optim.Optimizer]:
    torch.manual_seed(0)
    model = Own().to(memory_format=torch.channels_last)
    optimizer = build_optimizer(model, name="adamw", lr=0.01)
    continue_training(model, optimizer, steps)
    return model, optimizer


def continue_training(model: Own, optimizer: torch.optim.Optimizer, steps: int) -> None:
    for step in range(steps):
        torch.manual_seed(step)
        optimizer.zero_grad()
        model(torch.randn(2, 3, 8, 8)).square().sum().backward()
        optimizer.step()


def build(description: dict[str, Any]) -> nn.Module:
    return Own(description["width"])


def test_loaded_model_has_equal_predictions(tmp_path: Path) -> None:
    model, _ = trained()
    save_checkpoint(tmp_path / "own.safetensors", model, description={"width": 4}, metrics={"accuracy": None})
    loaded = load(tmp_path / "own.safetensors", build=build)
    x = torch.randn(2, 3, 8, 8)
    assert torch.equal(loaded(x), model.eval()(x))
    assert not torch.equal(Own().eval()(x), model(x))  # control: other weights differ
    assert load_checkpoint(tmp_path / "own.safetensors").metrics == {"accuracy": None}


def test_restored_run_continues_bit_for_bit(tmp_path: Path) -> None:
    model, optimizer = trained()
    path = tmp_path / "last.safetensors"
    save_checkpoint(path, model, description={"width": 4}, optimizer=optimizer, position=Position(1, 2, best=0.5))
    continue_training(model, optimizer, 3)
    checkpoint = load_checkpoint(path)
    assert checkpoint.position == Position(1, 2, best=0.5)
    resumed = Own().to(memory_format=torch.channels_last)
    resumed_optimizer = build_optimizer(resumed, name="adamw", lr=0.01)
    restore(checkpoint, resumed, resumed_optimizer)
    continue_training(resumed, resumed_optimizer, 3)
    for (name, expected), actual in zip(model.state_dict().items(), resumed.state_dict().values(), strict=True):
        assert torch.equal(expected, actual), name
    control = Own().to(memory_format=torch.channels_last)
    control.load_state_dict(checkpoint.weights)
    continue_training(control, build_optimizer(control, name="adamw", lr=0.01), 3)
    assert not torch.equal(control.conv.weight, model.conv.weight)


@pytest.mark.parametrize("channels_last", [False, True])
def test_memory_format_is_restored(tmp_path: Path, channels_last: bool) -> None:
    model = Own()
    if channels_last:
        model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    save_checkpoint(tmp_path / "a.safetensors", model, description={"width": 4})
    weight = load(tmp_path / "a.safetensors", build=build).conv.weight
    assert weight.is_contiguous() is not channels_last  # type: ignore[operator,union-attr]


def test_a_failed_write_keeps_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.safetensors"
    model, _ = trained()
    save_checkpoint(path, model, description={"width": 4})
    before = path.read_bytes()

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="no space left on the disk"):
        save_checkpoint(path, Own(), description={"width": 4})
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["a.safetensors"]


def test_write_order_is_sync_then_replace_then_sync_of_the_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    order: list[str] = []
    fsync, replace = os.fsync, Path.replace

    def logged_fsync(descriptor: int) -> None:
        order.append("fsync folder" if os.path.isdir(f"/proc/self/fd/{descriptor}") else "fsync file")  # noqa: PTH112
        fsync(descriptor)

    def logged_replace(self: Path, target: Path) -> Path:
        order.append("replace")
        return replace(self, target)

    monkeypatch.setattr(os, "fsync", logged_fsync)
    monkeypatch.setattr(Path, "replace", logged_replace)
    save_checkpoint(tmp_path / "a.safetensors", Own(), description={})
    assert order == ["fsync file", "replace", "fsync folder"]


@pytest.mark.parametrize("position", [0, 4, 20, 400, -1])
def test_error_for_a_truncated_file_contains_its_path(tmp_path: Path, position: int) -> None:
    path = tmp_path / "a.safetensors"
    save_checkpoint(path, Own(), description={})
    path.write_bytes(path.read_bytes()[:position])
    with pytest.raises(DataError, match=r"a\.safetensors: corrupt"):
        load_checkpoint(path)


def test_errors_for_files_that_are_not_checkpoints(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"best\.safetensors"):
        load(tmp_path)
    without_header = tmp_path / "plain.safetensors"
    safetensors.torch.save_file({"a": torch.zeros(1)}, without_header)
    with pytest.raises(DataError, match="--weights"):
        load_checkpoint(without_header)
    newer = tmp_path / "newer.safetensors"
    safetensors.torch.save_file({"a": torch.zeros(1)}, newer, metadata={"detseg": json.dumps({"schema": 99})})
    with pytest.raises(DataError, match="schema 99"):
        load_checkpoint(newer)


def test_a_pickle_is_not_executed(tmp_path: Path) -> None:
    canary = tmp_path / "canary"

    class Attack:
        def __reduce__(self) -> tuple[Any, tuple[str]]:
            return os.mkdir, (str(canary),)

    path = tmp_path / "attack.pt"
    torch.save({"model": Attack()}, path)
    with pytest.raises(DataError):
        load_checkpoint(path)
    assert not canary.exists()
    torch.load(path, weights_only=False)  # control: an unsafe loader executes the code
    assert canary.exists()
