"""Test the measurement of feeding on a few images; times themselves are not compared."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from torch import Tensor

from detseg.annotations import read
from detseg.benchmarks.feeding.echo import SlowDataset as EchoSource
from detseg.benchmarks.feeding.measure import decoded_bytes, feeding
from detseg.benchmarks.feeding.sweep import sweep
from detseg.datasets import Dataset
from detseg.options import FeedingConfig
from detseg.preprocess import Preprocessing
from detseg.runtime.reporter import Event, Reporter, silent
from detseg.synthetic.demo.render import demo_folder


class SmallModel(torch.nn.Module):
    """A model whose step takes as long as it is told."""

    def __init__(self, seconds: float) -> None:
        super().__init__()
        self.weight, self.seconds = torch.nn.Parameter(torch.ones(())), seconds

    def forward(self, images: list[Tensor], targets: list[dict[str, Tensor]]) -> dict[str, Tensor]:
        time.sleep(self.seconds)
        return {"loss": self.weight * images[0].float().mean()}


class SlowDataset(Dataset):
    """Samples that take as long as told."""

    seconds = 0.0

    def __getitem__(self, key: object) -> tuple[Tensor, dict[str, Tensor]]:
        time.sleep(self.seconds)
        return torch.zeros(3, 8, 8, dtype=torch.uint8), {}


@pytest.mark.parametrize(("loading", "step", "waits"), [(0.02, 0.0, True), (0.0, 0.02, False)])
def test_the_sweep_finds_who_waits(loading: float, step: float, waits: bool) -> None:
    table = read(demo_folder())
    dataset = SlowDataset(table, Preprocessing(64, 107), task="detect")
    dataset.seconds = loading
    model: Any = SmallModel(step)
    (rate,) = sweep(dataset, model, torch.device("cpu"), 2, [0], seconds=0.3, reporter=silent())
    assert (rate.waiting > 0.5) == waits
    assert rate.batches >= 3
    if loading:
        assert rate.loading < 1 / loading * 1.05


def test_the_benchmark_measures_every_stage_and_writes_its_numbers(tmp_path: Path) -> None:
    events: list[Event] = []
    config = FeedingConfig(
        model="fasterrcnn_mobilenet_v3_large_fpn_slim", image_size=64, sample=2, minutes=0.01, workers=[0, 1],
        output=str(tmp_path), device="cpu", batch_size=2, augment="flip",
    )  # fmt: skip
    result = feeding(config, reporter=Reporter(events.append))
    assert json.loads((tmp_path / "feeding.json").read_text()) == json.loads(json.dumps(result))
    names = [(stage["stage"], stage["size"]) for stage in result["stages"]]
    transforms = ["HorizontalFlip", "augment flip"]
    assert names == [
        ("read", 0), ("decode", 0), ("decode with PIL", 0), ("decode with OpenCV", 0), ("resize", 0), ("sample", 0),
        *((name, size) for size in (300, 1024) for name in transforms),
        ("collate", 0), ("copy to device", 0), ("model step", 0),
    ]  # fmt: skip
    assert all(stage["images"] and stage["images_per_second"] > 0 for stage in result["stages"])
    assert [row["workers"] for row in result["workers"]] == [0, 1]
    assert set(result["decoders"]) == {"decode with PIL", "decode with OpenCV"}
    text = "\n".join(event.text for event in events if event.kind == "line")
    assert all(line in text for line in result["lines"])
    assert f"suggestion: --workers {result['suggested_workers']}" in text


def test_the_size_of_decoded_images() -> None:
    table = read(demo_folder()).subset([0, 1])
    assert decoded_bytes(table, Preprocessing(100, 0, stretch=True)) == 2 * 3 * 100 * 100


def test_a_classifier_is_measured_too(tmp_path: Path) -> None:
    for name in ("blue", "red"):
        (tmp_path / "data" / name).mkdir(parents=True)
        for index in range(2):
            pixels = np.full((40, 48, 3), 60 * index, np.uint8)
            assert cv2.imwrite(str(tmp_path / "data" / name / f"{name}_{index}.png"), pixels)
    config = FeedingConfig(
        data=str(tmp_path / "data"), model="mobilenet_v3_small", image_size=64, sample=2, minutes=0.001, workers=[0],
        output=str(tmp_path / "out"), device="cpu", batch_size=2, decoded_limit=0,
    )  # fmt: skip
    result = feeding(config, reporter=silent())
    assert "masks" not in [stage["stage"] for stage in result["stages"]]
    assert not result["decoded_images_cached"]
    assert result["suggested_workers"] == 0


def test_a_slow_source_is_slow_once_for_all_uses_of_an_image() -> None:
    table = read(demo_folder()).subset([0, 1])
    for echoed, count in ((True, 2), (False, 4)):
        dataset = EchoSource(table, Preprocessing(32, 54), task="detect", echoed=echoed, delay=0.02)
        start = time.perf_counter()
        for row in (0, 0, 1, 1):
            assert len(dataset[row]) == 2
        assert dataset.decoded_images == count
        assert time.perf_counter() - start >= 0.02 * count
