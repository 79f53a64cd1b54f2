"""Small data and small runs for tests of the commands."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import detseg.training.fit as recipe
from detseg.cli import main
from detseg.synthetic.demo.render import render

SMALL = (
    *("--model", "maskrcnn_mobilenet_v3_large_fpn_slim", "--weights", "none", "--image-size", "96"),
    *("--epochs", "1", "--batch-size", "2", "--workers", "0", "--device", "cpu"),
    *("--rois-per-image", "32", "--detections-per-image", "20"),
)
"""Options of a run of seconds; later options win."""

Train = Callable[..., Path]


@pytest.fixture(scope="session")
def parts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The demo set with six images: four to train on, two for validation, three classes, instance masks."""
    folder = tmp_path_factory.mktemp("parts") / "data"
    render(folder, train=4, val=2)
    return folder


@pytest.fixture(scope="session")
def small() -> tuple[str, ...]:
    """The options that ``train`` adds, for a test that calls the command itself."""
    return SMALL


@pytest.fixture(scope="session")
def train() -> Train:
    """``train(data, output, *options)`` runs the command and gives back the run folder; it must succeed."""

    def run(data: Path, output: Path, *options: str) -> Path:
        assert main(["train", str(data), "--output", str(output), *SMALL, *options]) == 0
        return output

    return run


@pytest.fixture(scope="session")
def rows() -> Callable[[Path], list[dict[str, Any]]]:
    """``rows(run)`` reads metrics.jsonl without what depends on the clock."""

    def read(run: Path) -> list[dict[str, Any]]:
        values = [json.loads(text) for text in (run / "metrics.jsonl").read_text().splitlines()]
        return [{k: v for k, v in row.items() if k not in ("seconds", "images_per_second")} for row in values]

    return read


@pytest.fixture(scope="module")
def no_pictures() -> Iterator[None]:
    """Runs draw nothing, which takes longer than a tiny run; drawing is looked at elsewhere."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(recipe, "plot_curves", lambda rows, path: True)
        patch.setattr(recipe, "write_pictures", lambda *given: None)
        yield
