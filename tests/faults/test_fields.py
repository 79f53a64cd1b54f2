"""Every field of a checkpoint is needed: without it a resumed run ends otherwise. R2 of the scorecard, 18 fields."""

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
from tests.faults.conftest import FILES, Runs, rows_of, stopping_at

Header, Tensors = dict[str, Any], dict[str, torch.Tensor]


def rewrite(path: Path, edit: Callable[[Header, Tensors], None]) -> None:
    """Change a checkpoint as if it had been written so."""
    header, tensors = read_tensor_file(path)
    edit(header, tensors)
    content = safetensors.torch.save(tensors, metadata={"detseg": json.dumps(header | {"sha256": BLANK})})
    path.write_bytes(fill_checksum(content, 8 + int.from_bytes(content[:8], "little")))


def without(prefix: str, suffix: str = "", value: float = 0.0) -> Callable[[Header, Tensors], None]:
    """Tensors of this name as they are when a run begins."""

    def edit(header: Header, tensors: Tensors) -> None:
        found = [name for name in tensors if name.startswith(prefix) and name.endswith(suffix)]
        assert found
        for name in found:
            tensors[name] = torch.full_like(tensors[name], value)

    return edit


def header_field(*path: str | int, value: Any) -> Callable[[Header, Tensors], None]:
    """A number of the header as it is when a run begins."""

    def edit(header: Header, tensors: Tensors) -> None:
        place: Any = header
        for name in path[:-1]:
            place = place[name]
        assert place[path[-1]] != value, "the field says something"
        place[path[-1]] = value

    return edit


def begin_of(name: str) -> Any:
    return {"best": None, "best_epoch": -1, "losses": {}}.get(name, 0)


NAME = "R2 field of a checkpoint that is needed for that"
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
            header_field("position", name, value=begin_of(name)),
        )
        for name in ("epoch", "step", "micro_batches", "best", "best_epoch", "epochs_without_improvement")
    },
}
QUICK = ("adam's mean", "position: micro_batches")
STEP, LATE = 9, 15  # in the second epoch, in the third; the first one's accuracy is the best


@pytest.fixture(scope="module")
def stopped(runs: Runs, tmp_path_factory: pytest.TempPathFactory) -> Callable[[tuple[str, ...]], tuple[Path, Path]]:
    """``stopped(options)``: a run that was never stopped, and one that was stopped on the way."""
    made: dict[tuple[str, ...], tuple[Path, Path]] = {}

    def make(options: tuple[str, ...]) -> tuple[Path, Path]:
        if options not in made:
            folder = tmp_path_factory.mktemp("stopped")
            assert runs.begin(folder / "straight", *options) == 0
            step = LATE if options == LONG else STEP
            assert runs.begin(folder / "run", *options, before=stopping_at(step)) == EXIT_CODE
            made[options] = folder / "straight", folder / "run"
        return made[options]

    return make


def ends_equal(runs: Runs, straight: Path, stopped: Path, folder: Path, edit: Any = None) -> bool:
    shutil.copytree(stopped, folder)
    if edit is not None:
        rewrite(folder / "last.safetensors", edit)
    if runs.go_on(folder) != 0:
        return False
    return rows_of(folder) == rows_of(straight) and all(
        (folder / name).read_bytes() == (straight / name).read_bytes() for name in FILES
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
def test_control_whole_checkpoints_end_equal(
    options: tuple[str, ...], runs: Runs, stopped: Any, tmp_path: Path
) -> None:
    assert ends_equal(runs, *stopped(options), tmp_path / "run")
    assert ends_equal(runs, *stopped(options), tmp_path / "again", lambda header, tensors: None)


@pytest.mark.parametrize(
    "field", [pytest.param(name, marks=[] if name in QUICK else pytest.mark.faults) for name in FIELDS]
)
def test_without_a_field_the_run_ends_otherwise(
    field: str, runs: Runs, stopped: Any, tmp_path: Path, tally: Any
) -> None:
    options, edit = FIELDS[field]
    tally(NAME, int(not ends_equal(runs, *stopped(options), tmp_path / "run", edit)), 1)


def broken_from(step: int) -> Callable[[], None]:
    """Losses are NaN from an update on, and the process is asked to leave after it."""

    def before() -> None:
        forward = update_module.forward

        def broken(model: Any, batch: Any, *given: Any) -> Any:
            values, loss = forward(model, batch, *given)
            return (dict.fromkeys(values, float("nan")) if batch.index >= step else values), loss

        update_module.forward = broken

    return before


@pytest.mark.faults
def test_field_18_updates_left_out_in_a_row(runs: Runs, tmp_path: Path, tally: Any) -> None:
    """Three in a row are too many, also when the run was stopped after two of them."""

    def both() -> None:
        broken_from(2)()
        stopping_at(4)()

    options = ("--skip-nonfinite", "2")
    assert runs.begin(tmp_path / "run", *options, before=both) == EXIT_CODE
    shutil.copytree(tmp_path / "run", tmp_path / "without")
    rewrite(tmp_path / "without" / "last.safetensors", header_field("position", "skipped", value=0))

    def later() -> None:
        broken_from(2)()
        stopping_at(6)()

    assert runs.go_on(tmp_path / "run", before=later) == 1, "the third"
    tally(NAME, int(runs.go_on(tmp_path / "without", before=later) == EXIT_CODE), 1)


def test_there_are_18() -> None:
    assert len(FIELDS) + 1 == 18
