"""Every field of a checkpoint is needed: without it a resumed run ends differently. R2 of the scorecard, 18 fields."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch

import detseg.engine.update as update_module
from detseg.checkpoints.tensor_file import read_tensor_file
from detseg.runtime.checksum import BLANK, fill_checksum
from detseg.runtime.signals import EXIT_CODE
from tests.faults.conftest import FILES, Runs, rows_of, stop_after_step

Header, Tensors = dict[str, Any], dict[str, torch.Tensor]


def rewrite(path: Path, edit: Callable[[Header, Tensors], None]) -> None:
    """Edit a checkpoint and update its checksum."""
    header, tensors = read_tensor_file(path)
    edit(header, tensors)
    content = safetensors.torch.save(tensors, metadata={"detseg": json.dumps(header | {"sha256": BLANK})})
    path.write_bytes(fill_checksum(content, 8 + int.from_bytes(content[:8], "little")))


def without(prefix: str, suffix: str = "", value: float = 0.0) -> Callable[[Header, Tensors], None]:
    """Reset the tensors of this name to their value at the start of a run."""

    def edit(header: Header, tensors: Tensors) -> None:
        matches = [name for name in tensors if name.startswith(prefix) and name.endswith(suffix)]
        assert matches
        for name in matches:
            tensors[name] = torch.full_like(tensors[name], value)

    return edit


def header_field(*path: str | int, value: Any) -> Callable[[Header, Tensors], None]:
    """Reset a field of the header to its value at the start of a run."""

    def edit(header: Header, tensors: Tensors) -> None:
        parent: Any = header
        for name in path[:-1]:
            parent = parent[name]
        assert parent[path[-1]] != value, "the field differs from its initial value"
        parent[path[-1]] = value

    return edit


def initial_value(name: str) -> Any:
    return {"best": None, "best_epoch": -1, "losses": {}}.get(name, 0)


NAME = "R2 field of a checkpoint that is necessary to resume"
ADAM, SGD = ("--optimizer", "adamw"), ("--optimizer", "sgd", "--lr", "0.01")
HALF = ("--precision", "fp16")
LONG = (*ADAM, "--epochs", "3")
FIELDS: dict[str, tuple[tuple[str, ...], Callable[[Header, Tensors], None]]] = {
    "weights": (ADAM, without("model.", "weight", 0.01)),
    "norm statistics": (ADAM, without("model.", "running_mean")),
    "adam's mean": (ADAM, without("optimizer.", "exp_avg")),
    "adam's square": (ADAM, without("optimizer.", "exp_avg_sq", 1.0)),
    "adam's count": (ADAM, without("optimizer.", "step")),
    "sgd's momentum": (SGD, without("optimizer.", "momentum_buffer")),
    "average": (ADAM, without("ema.", "weight")),
    "average's count": (ADAM, header_field("ema_updates", value=0)),
    "scale of the loss": (HALF, header_field("scaler", value={})),
    "losses of the epoch": (ADAM, header_field("totals", 0, "losses", value={})),
    "images of the epoch": (ADAM, header_field("totals", 0, "images", value=0)),
    **{
        f"position: {name}": (
            LONG if name == "epochs_without_improvement" else ADAM,
            header_field("position", name, value=initial_value(name)),
        )
        for name in ("epoch", "step", "micro_batches", "best", "best_epoch", "epochs_without_improvement")
    },
}
QUICK = ("adam's mean", "position: micro_batches")
STEP, LATE = 9, 15  # in the second and the third epoch; the first epoch has the best accuracy


@pytest.fixture(scope="module")
def stopped(runs: Runs, tmp_path_factory: pytest.TempPathFactory) -> Callable[[tuple[str, ...]], tuple[Path, Path]]:
    """``stopped(options)``: folders of an uninterrupted run and of a run that was stopped."""
    folders: dict[tuple[str, ...], tuple[Path, Path]] = {}

    def make(options: tuple[str, ...]) -> tuple[Path, Path]:
        if options not in folders:
            folder = tmp_path_factory.mktemp("stopped")
            assert runs.start(folder / "uninterrupted", *options) == 0
            step = LATE if options == LONG else STEP
            assert runs.start(folder / "run", *options, before=stop_after_step(step)) == EXIT_CODE
            folders[options] = folder / "uninterrupted", folder / "run"
        return folders[options]

    return make


def ends_equal(runs: Runs, uninterrupted: Path, stopped: Path, folder: Path, edit: Any = None) -> bool:
    shutil.copytree(stopped, folder)
    if edit is not None:
        rewrite(folder / "last.safetensors", edit)
    if runs.resume(folder) != 0:
        return False
    return rows_of(folder) == rows_of(uninterrupted) and all(
        (folder / name).read_bytes() == (uninterrupted / name).read_bytes() for name in FILES
    )


@pytest.mark.parametrize(
    "options",
    [
        ADAM,
        pytest.param(SGD, marks=pytest.mark.faults),
        pytest.param(HALF, marks=pytest.mark.faults),
        pytest.param(LONG, marks=pytest.mark.faults),
    ],
    ids=["adam", "sgd", "half", "long"],
)
def test_control_unchanged_checkpoints_end_equal(
    options: tuple[str, ...], runs: Runs, stopped: Any, tmp_path: Path
) -> None:
    assert ends_equal(runs, *stopped(options), tmp_path / "run")
    assert ends_equal(runs, *stopped(options), tmp_path / "again", lambda header, tensors: None)


@pytest.mark.parametrize(
    "field", [pytest.param(name, marks=[] if name in QUICK else pytest.mark.faults) for name in FIELDS]
)
def test_without_a_field_the_run_ends_differently(
    field: str, runs: Runs, stopped: Any, tmp_path: Path, tally: Any
) -> None:
    options, edit = FIELDS[field]
    tally(NAME, int(not ends_equal(runs, *stopped(options), tmp_path / "run", edit)), 1)


def nan_losses_from(step: int) -> Callable[[], None]:
    """Make the losses NaN from batch ``step`` of an epoch."""

    def before() -> None:
        forward = update_module.forward

        def forward_with_nan(model: Any, batch: Any, *args: Any) -> Any:
            values, loss = forward(model, batch, *args)
            return (dict.fromkeys(values, float("nan")) if batch.index >= step else values), loss

        update_module.forward = forward_with_nan

    return before


@pytest.mark.faults
def test_field_18_consecutive_skipped_updates(runs: Runs, tmp_path: Path, tally: Any) -> None:
    """Three consecutive skipped updates are an error, also if the run was stopped after two of them."""

    def both() -> None:
        nan_losses_from(2)()
        stop_after_step(4)()

    options = ("--skip-nonfinite", "2")
    assert runs.start(tmp_path / "run", *options, before=both) == EXIT_CODE
    shutil.copytree(tmp_path / "run", tmp_path / "without")
    rewrite(tmp_path / "without" / "last.safetensors", header_field("position", "skipped", value=0))

    def later() -> None:
        nan_losses_from(2)()
        stop_after_step(6)()

    assert runs.resume(tmp_path / "run", before=later) == 1, "the third skipped update"
    tally(NAME, int(runs.resume(tmp_path / "without", before=later) == EXIT_CODE), 1)


def test_there_are_18() -> None:
    assert len(FIELDS) + 1 == 18
