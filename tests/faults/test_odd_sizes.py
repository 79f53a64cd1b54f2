"""Images of one pixel, a line or 12 million pixels, and data sets of one image. N4 of the scorecard, 100 and 18."""

from __future__ import annotations

import contextlib
import io
import json
import sys
from collections.abc import Callable
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest
import torch

import detseg.training.fit as fit_recipe
from detseg.annotations import read
from detseg.cli import main
from detseg.datasets import Dataset
from detseg.errors import DataError
from detseg.inference.predictor import Predictor
from detseg.models import build_model, describe
from detseg.structures import Prediction
from tests.faults.children import run_together
from tests.faults.conftest import DETECTORS, rows_of

sys.path.append(str(Path(__file__).parents[2]))  # where the new processes find tests.faults.children

SIZES = ((1, 1), (1, 2), (2, 1), (3, 3), (31, 33), (1, 2000), (2000, 1), (1, 20000), (20000, 1), (3000, 4000))
"""Width and height."""
QUICK = ((1, 1), (31, 33), (1, 2000))
UNRESIZED = 20000
"""Pixels up to which the network gets an image as it is, too. (12 million take 20 GB; a run makes them fewer.)"""
FEW, BATCHES, WORLDS = (1, 2, 3), (1, 2, 4), (1, 2)

Sample = tuple[torch.Tensor, dict[str, torch.Tensor]]


def write_result_images(folder: Path, sizes: tuple[tuple[int, int], ...]) -> Path:
    """Images of these widths and heights, each with one object of its size: a COCO file."""
    folder.mkdir()
    rng = np.random.default_rng(0)
    images, annotations = [], []
    for number, (width, height) in enumerate(sizes, 1):
        name = f"{number}.png"
        row = rng.integers(0, 256, (1, width, 3), dtype=np.uint8)
        PIL.Image.fromarray(np.tile(row, (height, 1, 1))).save(folder / name, compress_level=1)
        images.append({"id": number, "file_name": name, "width": width, "height": height})
        frame = [0, 0, width, 0, width, height, 0, height]
        box = {"bbox": [0, 0, width, height], "area": width * height, "segmentation": [frame]}
        annotations.append({"id": number, "image_id": number, "category_id": 1, "iscrowd": 0, **box})
    path = folder / "coco.json"
    content = {"images": images, "annotations": annotations, "categories": [{"id": 1, "name": "thing"}]}
    path.write_text(json.dumps(content))
    return path


class Bench:
    """A model with random weights that keeps every detection, and the samples of all sizes."""

    def __init__(self, arch: str, path: Path) -> None:
        table = read(path)
        torch.manual_seed(0)
        described = describe(arch, table.class_map, weights="none", image_size=64, detections_per_image=5)
        self.model: Any = build_model(replace(described, score_threshold=0.0))
        self.dataset = Dataset(table, self.model.preprocessing, task="segment")
        self.found = 0

    def sample(self, index: int) -> Sample:
        """As a run sees an image."""
        image, target = self.dataset[index]
        return image, target

    def unresized(self, index: int) -> Sample | None:
        """The image as it is; None if it is too much."""
        record = self.dataset.table[index]
        height, width = record.size_hw
        if height * width > UNRESIZED:
            return None
        pixels = np.asarray(PIL.Image.open(record.path).convert("RGB")).transpose(2, 0, 1)
        boxes, masks = torch.tensor([[0.0, 0.0, width, height]]), torch.ones(1, height, width, dtype=torch.uint8)
        target = {"boxes": boxes, "labels": torch.tensor([1]), "masks": masks, "image_id": torch.tensor(index)}
        return torch.from_numpy(pixels.copy()), target

    def samples(self, index: int) -> list[Sample]:
        unresized = self.unresized(index)
        return [self.sample(index), *([] if unresized is None else [unresized])]

    def trains(self, index: int) -> bool:
        """A step on one such image, or an error that says its size and what else to do; on two always."""
        return all(
            self._step([sample], refusable=True) and (sample[0].numel() > 10**4 or self._step([sample] * 2))
            for sample in self.samples(index)
        )

    def _step(self, samples: list[Sample], *, refusable: bool = False) -> bool:
        self.model.train().zero_grad()
        torch.manual_seed(0)
        images, targets = zip(*samples, strict=True)
        try:
            losses = self.model(list(images), list(targets))
        except DataError as error:
            height, width = images[0].shape[1:]
            return refusable and f"{width} x {height} pixels" in str(error) and "; use " in str(error)
        loss = torch.stack(list(losses.values())).sum()
        loss.backward()
        gradients = [parameter.grad for parameter in self.model.parameters() if parameter.grad is not None]
        return bool(loss.isfinite()) and all(bool(gradient.isfinite().all()) for gradient in gradients)

    def predicts(self, index: int) -> bool:
        """Finite detections inside the image, from its file and from its pixels as they are."""
        record = self.dataset.table[index]
        found = Predictor(self.model, "cpu")(record.path)
        assert isinstance(found, Prediction)
        self.found += len(found)
        right = found.size_hw == record.size_hw and self._inside(found, record.size_hw)
        for image, _ in self.samples(index):
            with torch.inference_mode():
                raw = self.model.eval()([image])[0]
            right = right and self._inside(raw, (image.shape[1], image.shape[2]))
        return right and all(rle["size"] == list(record.size_hw) for rle in found.rles or [])

    @staticmethod
    def _inside(found: Any, size_hw: tuple[int, int]) -> bool:
        (x1, y1, x2, y2), (height, width) = found.boxes.T, size_hw  # NaN makes a comparison false
        inside = (x1 >= 0) & (y1 >= 0) & (x1 <= x2) & (y1 <= y2) & (x2 <= width) & (y2 <= height)
        return bool(inside.all() and ((found.scores >= 0) & (found.scores <= 1) & (found.labels == 1)).all())


def sizes_lost(arch: str, path: Path, sizes: tuple[tuple[int, int], ...]) -> list[tuple[str, tuple[int, int]]]:
    """Which (what, size) did not work."""
    bench = Bench(arch, path)
    lost = [("train", size) for index, size in enumerate(sizes) if not bench.trains(index)]
    lost += [("predict", size) for index, size in enumerate(sizes) if not bench.predicts(index)]
    assert bench.found > 0, "something is found, or inside says nothing"
    return lost


def test_some_sizes(tmp_path: Path) -> None:
    assert sizes_lost(DETECTORS[0], write_result_images(tmp_path / "data", QUICK), QUICK) == []


@pytest.mark.faults
@pytest.mark.parametrize("arch", DETECTORS)
def test_100_sizes(arch: str, tmp_path: Path, tally: Callable[[str, int, int], None]) -> None:
    lost = sizes_lost(arch, write_result_images(tmp_path / "data", SIZES), SIZES)
    print(lost)
    tally("N4 odd sizes: trained and predicted", 2 * len(SIZES) - len(lost), 2 * len(SIZES))


def command(world: int, arguments: list[str], folder: Path) -> tuple[list[int], str]:
    """Exit code of each process, and what the first prints; one process is this one, which draws nothing."""
    if world > 1:
        return run_together(world, arguments, folder)
    text = io.StringIO()
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(text), contextlib.redirect_stderr(text):
        patch.setattr(fit_recipe, "plot_curves", lambda rows, path: True)
        patch.setattr(fit_recipe, "write_result_images", lambda *given: None)
        return [main(arguments)], text.getvalue()


def what_happens(images: int, batch: int, world: int, folder: Path) -> str:
    """``trained`` if so few images train, evaluate and resume; else the error, or what broke."""
    data, run = str(write_result_images(folder / "data", ((64, 64),) * images)), folder / "run"
    model = ("--task", "detect", "--model", DETECTORS[0], "--weights", "none", "--image-size", "64", "--device", "cpu")
    options = (*model, "--val-annotations", data, "--epochs", "1", "--batch-size", str(batch), "--output", str(run))
    codes, text = command(world, ["train", data, *options], folder)
    last = text.splitlines()[-1]
    if codes == [1] * world and "Traceback" not in text and not run.exists():
        return last
    later = (["evaluate", str(run)], 1), (["train", "--resume", str(run), "--epochs", "2"], world)
    for arguments, processes in later:
        if any(codes):
            return f"broken: {codes} {text}"
        codes, text = command(processes, arguments, folder)
    return "trained" if not any(codes) and len(rows_of(run)) == 2 else f"broken: {codes} {text}"


def is_right(text: str, images: int, batch: int, world: int) -> bool:
    if world > 1 and images < world * batch:  # a process would have nothing to do
        return text.startswith(f"detseg train: {images} images are not enough for {world} processes")
    return text == "trained"


def test_a_tiny_data_set(tmp_path: Path) -> None:
    assert what_happens(1, 2, 1, tmp_path) == "trained"


@pytest.mark.faults
@pytest.mark.parametrize(("images", "batch", "world"), list(product(FEW, BATCHES, WORLDS)))
def test_18_tiny_data_sets(
    images: int, batch: int, world: int, tmp_path: Path, tally: Callable[[str, int, int], None]
) -> None:
    text = what_happens(images, batch, world, tmp_path)
    print(text)
    tally("N4 tiny data sets: trained, evaluated, resumed", int(is_right(text, images, batch, world)), 1)
