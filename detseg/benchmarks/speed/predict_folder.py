"""Compare the speed of predicting a folder of large photographs with a loop that predicts one image at a time."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from detseg.benchmarks.speed.interleaved_timing import Comparison, time_interleaved
from detseg.benchmarks.speed.scenes_set import write_image
from detseg.classes import ClassMap
from detseg.errors import DataError
from detseg.inference.prediction_stream import ImageFile, default_threads, predicted_images
from detseg.inference.predictor import Predictor
from detseg.inference.results import to_results
from detseg.models import build_model, describe, load_weights
from detseg.models.weights.bundled import BUNDLED, BUNDLED_ARCH
from detseg.synthetic.scenes import SHAPE_FAMILIES

Results = list[list[dict[str, Any]]]

TWELVE_MEGAPIXELS = (3000, 4000)
DIFFERENT = 12
"""Different images; each is predicted several times."""


def predicting_folders(
    folder: Path,
    device: torch.device,
    size_hw: tuple[int, int] = TWELVE_MEGAPIXELS,
    *,
    images: int = 60,
    turns: int = 3,
    target: float | None = 1.5,
) -> list[Comparison]:
    """Compare on ``images`` JPEGs of ``size_hw``, with all cores: the bundled Mask R-CNN at 320, and a classifier.

    Raises:
        DataError: the results differ.
    """
    paths = [folder / f"photo{number}.jpg" for number in range(min(DIFFERENT, images))]
    for number, path in enumerate(paths):
        write_image(path, size_hw, seed=number)
    files = [ImageFile(number + 1, paths[number % len(paths)], f"{number}.jpg") for number in range(images)]
    return [
        _compared(f"folder of {images} JPEGs of {size_hw[0]} x {size_hw[1]}, {name}", predictor, files, turns, target)
        for name, predictor in _predictors(device)
    ]


def _predictors(device: torch.device) -> list[tuple[str, Predictor]]:
    shapes = describe(BUNDLED_ARCH, ClassMap.from_names(SHAPE_FAMILIES), weights=BUNDLED, image_size=320)
    detector = build_model(replace(shapes, score_threshold=0.5))
    load_weights(detector, BUNDLED)
    torch.manual_seed(0)
    classes = ClassMap.from_names(["a", "b"])
    classifier = build_model(describe("mobilenet_v3_small", classes, weights="imagenet"))
    return [
        ("compact Mask R-CNN at 320", Predictor(detector, device)),
        ("MobileNetV3 small classifier", Predictor(classifier, device)),
    ]


def _compared(name: str, predictor: Predictor, files: list[ImageFile], turns: int, target: float | None) -> Comparison:
    threads = default_threads()

    def ours() -> Results:
        stream = predicted_images(files, predictor, threads=threads)
        return [to_results(image.prediction, predictor.class_map) for image in stream if image.prediction is not None]

    def theirs() -> Results:
        return [to_results(predictor(file.path), predictor.class_map) for file in files]

    check_equal(ours(), theirs())
    return time_interleaved(
        name,
        ours,
        theirs,
        baseline="a loop of Predictor, image by image",
        target=target,
        turns=turns,
        note=f"{threads} threads decode; the results are equal",
    )


def check_equal(ours: Results, theirs: Results) -> None:
    """DataError unless both have the same results for each image."""
    if len(ours) != len(theirs):
        raise DataError(f"results of {len(ours)} and {len(theirs)} images")
    for number, (first, second) in enumerate(zip(ours, theirs, strict=True)):
        same = [item["category_id"] for item in first] == [item["category_id"] for item in second]
        scores = [np.array([item["score"] for item in items]) for items in (first, second)]
        if not same or not np.allclose(scores[0], scores[1], atol=1e-5):
            raise DataError(f"image {number}: the results differ")
