"""Time each stage of loading an image, on one core, as a loader worker does it."""

from __future__ import annotations

import io
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, TypeVar

import cv2
import numpy as np
import numpy.typing as npt
from PIL import Image

from detseg.annotations import AnnotationTable
from detseg.annotations.table import Record
from detseg.benchmarks.speed.interleaved_timing import one_core
from detseg.datasets import Dataset, preset
from detseg.datasets.augment import Augment
from detseg.images import EncodedImage
from detseg.masks import rasterize_all
from detseg.media.files import open_file
from detseg.orientation import orient_image
from detseg.preprocess import Preprocessing, longer_side
from detseg.runtime.reporter import Reporter
from detseg.tasks import Task

TRANSFORM_SIZES = (300, 1024)
"""Input sizes, in pixels of the shorter side, at which the transforms of a preset are timed."""

LOADED = ("read", "decode", "resize")
"""Stages that the cache of decoded images saves in later epochs."""

Value = TypeVar("Value")


@dataclass(frozen=True)
class Stage:
    """The time of one stage.

    Attributes:
        name: such as "decode", or the name of a transform.
        seconds: mean of an image, on one core.
        images: number of images that were measured.
        size: input size in pixels; 0 if the stage does not depend on one.
    """

    name: str
    seconds: float
    images: int
    size: int = 0

    @property
    def per_second(self) -> float:
        """Images per second."""
        return 1 / max(self.seconds, 1e-9)

    def to_dict(self) -> dict[str, Any]:
        """Return the stage for JSON."""
        return {
            "stage": self.name,
            "size": self.size,
            "seconds_per_image": self.seconds,
            "images_per_second": self.per_second,
            "images": self.images,
        }


class Clock:
    """Adds up the seconds of stages."""

    def __init__(self) -> None:
        self._times: dict[tuple[str, int], list[float]] = {}

    def time(self, name: str, run: Callable[[], Value], size: int = 0) -> Value:
        """Run once, and count its time for the stage."""
        start = time.perf_counter()
        value = run()
        self._times.setdefault((name, size), []).append(time.perf_counter() - start)
        return value

    def stages(self) -> list[Stage]:
        """Return the stages in the order of their first call."""
        return [
            Stage(name, sum(seconds) / len(seconds), len(seconds), size)
            for (name, size), seconds in self._times.items()
        ]


def measure_stages(
    table: AnnotationTable,
    preprocessing: Preprocessing,
    task: Task,
    augment: str,
    *,
    deadline: float,
    reporter: Reporter,
) -> list[Stage]:
    """Time reading, decoding (also by PIL and OpenCV), resizing, masks, transforms and whole samples.

    Images are whole, also if the preprocessing has tiles. A file that was read recently comes from memory.

    Args:
        table: the images to measure. The first one is also loaded once before, untimed.
        preprocessing: of the model; its size is that of "resize", "masks" and "sample".
        augment: name of a preset.
        deadline: in seconds of :func:`time.monotonic`; after it no other image is begun, but one is always measured.

    Raises:
        DataError: an image cannot be loaded.
        OSError: an image cannot be opened.
    """
    timed = _TimedImages(table, replace(preprocessing, tiling=None), task, augment)
    with one_core(), reporter.bar("stages of loading", total=len(table), unit="image") as bar:
        timed.run(0, Clock())
        clock = Clock()
        for row in range(len(table)):
            if row > 0 and time.monotonic() > deadline:
                break
            timed.run(row, clock)
            bar.update()
    return clock.stages()


class _TimedImages:
    """The stages of each image of a table."""

    def __init__(self, table: AnnotationTable, preprocessing: Preprocessing, task: Task, augment: str) -> None:
        self.table, self.preprocessing, self.task = table, preprocessing, task
        self.samples = Dataset(table, preprocessing, task=task, augment=preset(augment, task))
        self.sized = {size: Dataset(table, at_size(preprocessing, size), task=task) for size in TRANSFORM_SIZES}
        self.transforms = _transforms(augment, task)

    def run(self, row: int, clock: Clock) -> None:
        """Time all stages of the image in a row."""
        _load(clock, self.table[row], self.preprocessing, self.task)
        clock.time("sample", lambda: self.samples[row])
        for size, dataset in self.sized.items():
            image, target = _arrays(dataset, row)
            for name, transform in self.transforms:
                clock.time(name, partial(transform, image, target, row, landscape=False), size)


def at_size(preprocessing: Preprocessing, size: int) -> Preprocessing:
    """Return the preprocessing with another input size."""
    return replace(
        preprocessing,
        min_size=size,
        max_size=longer_side(size) if preprocessing.max_size else 0,
        crop=size if preprocessing.crop else 0,
    )


def _load(clock: Clock, record: Record, preprocessing: Preprocessing, task: Task) -> None:
    """Time the stages of one image without augmentation, and the other decoders."""
    geometry = preprocessing.geometry(record.size_hw, record.orientation)
    data = clock.time("read", lambda: _read(record))
    height, width = geometry.resized_hw
    min_hw = (height, width) if record.orientation < 5 else (width, height)
    name, value_range = str(record.path), preprocessing.value_range
    encoded = EncodedImage(data, name=name)
    pixels = clock.time(
        "decode",
        lambda: EncodedImage(data, name=name).decode(upright=False, min_hw=min_hw, value_range=value_range),
    )
    if encoded.header.format in ("JPEG", "MPO", "PNG", "WEBP", "BMP") and not encoded.is_deep:
        clock.time("decode with PIL", lambda: np.asarray(Image.open(io.BytesIO(data)).convert("RGB")))
        clock.time("decode with OpenCV", lambda: _decode_with_cv2(data))
    pixels = orient_image(pixels, record.orientation)
    clock.time("resize", lambda: preprocessing.apply(pixels, geometry))
    if task == "segment":
        rows = np.flatnonzero(~(record.iscrowd | record.ignore))
        outlines = [outline for row in rows if (outline := record.segmentations[row]) is not None]
        clock.time("masks", lambda: rasterize_all(outlines, geometry.original_hw, geometry.resized_hw))


def _read(record: Record) -> bytes:
    with open_file(record.path) as file:
        return file.read()


def _decode_with_cv2(data: bytes) -> Any:
    return cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR_RGB | cv2.IMREAD_IGNORE_ORIENTATION)


def _transforms(augment: str, task: Task) -> list[tuple[str, Augment]]:
    """Each transform of a preset, and the preset as a whole."""
    whole = preset(augment, task)
    if whole is None:
        return []
    parts = [(type(transform).__name__.lstrip("_"), Augment([transform])) for transform in whole.transforms]
    return [*parts, (f"augment {augment}", whole)]


def _arrays(dataset: Dataset, row: int) -> tuple[npt.NDArray[np.uint8], dict[str, Any]]:
    """A sample as an augmentation takes it."""
    image, target = dataset[row]
    arrays = {name: value.numpy() for name, value in target.items() if value.ndim}
    return np.ascontiguousarray(image.permute(1, 2, 0).numpy()), arrays


def seconds_of(stages: Sequence[Stage], names: Sequence[str]) -> float:
    """Seconds of an image in the named stages together."""
    return sum(stage.seconds for stage in stages if stage.name in names)
