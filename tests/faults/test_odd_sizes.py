"""Images of one pixel, one row or 12 million pixels, and data sets of one image. N4 of the scorecard, 100 and 18."""

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

import detseg.training.run_results as results_module
from detseg.annotations import read
from detseg.cli import main
from detseg.datasets import Dataset
from detseg.errors import DataError
from detseg.inference.predictor import Predictor
from detseg.models import build_model, describe
from detseg.structures import Prediction
from tests.faults.children import run_together
from tests.faults.conftest import DETECTORS, rows_of

sys.path.append(str(Path(__file__).parents[2]))  # the child processes import tests.faults.children from here

SIZES = ((1, 1), (1, 2), (2, 1), (3, 3), (31, 33), (1, 2000), (2000, 1), (1, 20000), (20000, 1), (3000, 4000))
"""Width and height."""
QUICK = ((1, 1), (31, 33), (1, 2000))
UNRESIZED = 20000
"""Maximum pixels for tests without resizing. (12 million pixels need 20 GB; in a run images are resized.)"""
FEW, BATCHES, WORLDS = (1, 2, 3), (1, 2, 4), (1, 2)

Sample = tuple[torch.Tensor, dict[str, torch.Tensor]]


def write_coco(folder: Path, sizes: tuple[tuple[int, int], ...]) -> Path:
    """Write a COCO file and images of these (width, height), each with one object that covers the image."""
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


class SizeTest:
    """A randomly initialized model with a score threshold of 0, and samples of all sizes."""

    def __init__(self, arch: str, path: Path) -> None:
        table = read(path)
        torch.manual_seed(0)
        description = describe(arch, table.class_map, weights="none", image_size=64, detections_per_image=5)
        self.model: Any = build_model(replace(description, score_threshold=0.0))
        self.dataset = Dataset(table, self.model.preprocessing, task="segment")
        self.detections = 0

    def sample(self, index: int) -> Sample:
        """The sample as preprocessed in a run."""
        image, target = self.dataset[index]
        return image, target

    def unresized(self, index: int) -> Sample | None:
        """The sample without resizing; None if the image is too large."""
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
        """Whether a step works on one image, or raises an error with its size and a remedy; on two it must work."""
        return all(
            self._step([sample], may_raise=True) and (sample[0].numel() > 10**4 or self._step([sample] * 2))
            for sample in self.samples(index)
        )

    def _step(self, samples: list[Sample], *, may_raise: bool = False) -> bool:
        self.model.train().zero_grad()
        torch.manual_seed(0)
        images, targets = zip(*samples, strict=True)
        try:
            losses = self.model(list(images), list(targets))
        except DataError as error:
            height, width = images[0].shape[1:]
            return may_raise and f"{width} x {height} pixels" in str(error) and "; use " in str(error)
        loss = torch.stack(list(losses.values())).sum()
        loss.backward()
        gradients = [parameter.grad for parameter in self.model.parameters() if parameter.grad is not None]
        return bool(loss.isfinite()) and all(bool(gradient.isfinite().all()) for gradient in gradients)

    def predicts(self, index: int) -> bool:
        """Whether detections are finite and inside the image, for its file and for its pixels without resizing."""
        record = self.dataset.table[index]
        prediction = Predictor(self.model, "cpu")(record.path)
        assert isinstance(prediction, Prediction)
        self.detections += len(prediction)
        correct = prediction.size_hw == record.size_hw and self._inside(prediction, record.size_hw)
        for image, _ in self.samples(index):
            with torch.inference_mode():
                raw = self.model.eval()([image])[0]
            correct = correct and self._inside(raw, (image.shape[1], image.shape[2]))
        return correct and all(rle["size"] == list(record.size_hw) for rle in prediction.rles or [])

    @staticmethod
    def _inside(output: Any, size_hw: tuple[int, int]) -> bool:
        (x1, y1, x2, y2), (height, width) = output.boxes.T, size_hw  # a comparison with NaN is false
        inside = (x1 >= 0) & (y1 >= 0) & (x1 <= x2) & (y1 <= y2) & (x2 <= width) & (y2 <= height)
        return bool(inside.all() and ((output.scores >= 0) & (output.scores <= 1) & (output.labels == 1)).all())


def failed_sizes(arch: str, path: Path, sizes: tuple[tuple[int, int], ...]) -> list[tuple[str, tuple[int, int]]]:
    """Pairs ("train" or "predict", size) that did not work."""
    test = SizeTest(arch, path)
    failed = [("train", size) for index, size in enumerate(sizes) if not test.trains(index)]
    failed += [("predict", size) for index, size in enumerate(sizes) if not test.predicts(index)]
    assert test.detections > 0, "without detections the check of the boxes is empty"
    return failed


def test_some_sizes(tmp_path: Path) -> None:
    assert failed_sizes(DETECTORS[0], write_coco(tmp_path / "data", QUICK), QUICK) == []


@pytest.mark.faults
@pytest.mark.parametrize("arch", DETECTORS)
def test_100_sizes(arch: str, tmp_path: Path, tally: Callable[[str, int, int], None]) -> None:
    lost = failed_sizes(arch, write_coco(tmp_path / "data", SIZES), SIZES)
    print(lost)
    tally("N4 odd sizes: trained and predicted", 2 * len(SIZES) - len(lost), 2 * len(SIZES))


def command(world: int, arguments: list[str], folder: Path) -> tuple[list[int], str]:
    """Exit code of each process, and the output of the main process; a single process runs here, without plots."""
    if world > 1:
        return run_together(world, arguments, folder)
    text = io.StringIO()
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(text), contextlib.redirect_stderr(text):
        patch.setattr(results_module, "plot_curves", lambda rows, path: True)
        patch.setattr(results_module, "write_result_images", lambda *args: None)
        return [main(arguments)], text.getvalue()


def train_evaluate_resume(images: int, batch: int, world: int, folder: Path) -> str:
    """ "trained" if training, evaluation and resuming work with ``images`` images; else the error message."""
    data, run = str(write_coco(folder / "data", ((64, 64),) * images)), folder / "run"
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


def is_expected(text: str, images: int, batch: int, world: int) -> bool:
    if world > 1 and images < world * batch:  # a process would have no images
        return text.startswith(f"detseg train: {images} images are not enough for {world} processes")
    return text == "trained"


def test_a_tiny_data_set(tmp_path: Path) -> None:
    assert train_evaluate_resume(1, 2, 1, tmp_path) == "trained"


@pytest.mark.faults
@pytest.mark.parametrize(("images", "batch", "world"), list(product(FEW, BATCHES, WORLDS)))
def test_18_tiny_data_sets(
    images: int, batch: int, world: int, tmp_path: Path, tally: Callable[[str, int, int], None]
) -> None:
    text = train_evaluate_resume(images, batch, world, tmp_path)
    print(text)
    tally("N4 tiny data sets: trained, evaluated, resumed", int(is_expected(text, images, batch, world)), 1)
