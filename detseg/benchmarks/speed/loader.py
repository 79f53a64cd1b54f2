"""Compare the speed of loading: from files to samples, an image and its masks at the network's size."""

from __future__ import annotations

import contextlib
import io
import random
import statistics
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch
from PIL import Image
from pycocotools.coco import COCO
from torch import Tensor
from torchvision.models.detection.transform import GeneralizedRCNNTransform
from torchvision.transforms import functional

from detseg.annotations import AnnotationTable, read_coco
from detseg.benchmarks.speed.interleaved_timing import Comparison, one_core, time_interleaved
from detseg.benchmarks.speed.scenes_set import scene_set
from detseg.datasets import Dataset, SampleKey, preset
from detseg.datasets.decoded_images import DecodedImages
from detseg.errors import DataError
from detseg.preprocess import Preprocessing

BASELINE = "PIL, annToMask, torchvision's resize of image and masks"
MIN_IOU = 0.95
"""Minimum IoU of the masks of both implementations, over all pixels of all masks: detseg scales the polygon, the
baseline scales its pixels and truncates values below 1, so that its masks lose half a pixel at the border."""
CHECKED_SAMPLES = 4
MAX_PIXEL_DIFFERENCE = 0.05
"""Maximum mean difference of pixels in [0, 1]: the decoders, and the order of resizing and rounding, differ."""

Loaded = tuple[Tensor, Tensor]
"""float32 [3, h, w] in [0, 1] and uint8 [N, h, w]."""


def compare(device: torch.device) -> list[Comparison]:
    """Compare loading on the CPU, independent of ``device``."""
    with one_core(), TemporaryDirectory() as folder:
        annotations = scene_set(Path(folder), 12, (960, 1280), 12)
        comparisons = [
            loading(annotations, 480),
            loading(annotations, 480, flipped=True),
            loading(annotations, 800),
            loading(annotations, 800, flipped=True),
        ]
        for size in (480, 800):
            comparisons += [reloading(annotations, size, against_baseline=value) for value in (True, False)]
    return comparisons


def loading(annotations: Path, size: int, *, flipped: bool = False, turns: int = 5) -> Comparison:
    """Compare loading all samples of a data set, once per turn; ``flipped``: each with probability 0.5.

    Raises:
        DataError: the two implementations do not agree.
    """
    ours, theirs = Ours(annotations, size, flipped=flipped), Baseline(annotations, size, flipped=flipped)
    compared = range(min(CHECKED_SAMPLES, len(theirs)))
    unflipped = Ours(annotations, size), Baseline(annotations, size)  # each samples its own flips
    agreement = check_samples(*([side[i] for i in compared] for side in unflipped))
    comparison = time_interleaved(
        f"load {len(theirs)} images and masks, to {size}{', flipped' if flipped else ''}",
        lambda: [ours[i] for i in range(len(theirs))],
        lambda: [theirs[i] for i in range(len(theirs))],
        baseline=BASELINE + (", hflip" if flipped else ""),
        target=5,
        turns=turns,
    )
    note = f"{_per_second(comparison, len(theirs))}; IoU of masks with the baseline's {agreement:.3f}"
    return replace(comparison, note=note)


def reloading(annotations: Path, size: int, *, against_baseline: bool, turns: int = 5) -> Comparison:
    """Compare loading with cached decoded images against the baseline, or against detseg without the cache."""
    table = read_coco(annotations)
    with TemporaryDirectory() as folder:
        decoded = DecodedImages(table, _preprocessing(size), folder)
        cached, uncached = Ours(annotations, size, decoded=decoded), Ours(annotations, size)
        if any(not torch.equal(*pair) for i in range(len(table)) for pair in zip(cached[i], uncached[i], strict=True)):
            raise DataError("a sample from the cached decoded image differs from the uncached one")
        theirs = Baseline(annotations, size) if against_baseline else uncached
        comparison = time_interleaved(
            f"load {len(table)} images and masks again, to {size}",
            lambda: [cached[i] for i in range(len(table))],
            lambda: [theirs[i] for i in range(len(table))],
            baseline=BASELINE if against_baseline else "the same without cached decoded images",
            target=5 if against_baseline else None,
            turns=turns,
        )
    return replace(comparison, note=f"{_per_second(comparison, len(table))}; equal samples with and without cache")


class Ours:
    """Samples of detseg, with the conversion to float that its models do on the device."""

    def __init__(
        self, annotations: Path, size: int, *, flipped: bool = False, decoded: DecodedImages | None = None
    ) -> None:
        table: AnnotationTable = read_coco(annotations) if decoded is None else decoded.table
        augment = preset("flip", "segment") if flipped else None
        self.dataset = Dataset(table, _preprocessing(size), task="segment", augment=augment, decoded=decoded)
        self.loads = 0

    def __getitem__(self, index: int) -> Loaded:
        self.loads += 1
        image, target = self.dataset[SampleKey(index, self.loads)]  # like a new epoch: another random augmentation
        return image.float().div_(255), target["masks"]


class Baseline:
    """A typical dataset class with PIL and pycocotools, and the resize of torchvision's models."""

    def __init__(self, annotations: Path, size: int, *, flipped: bool = False) -> None:
        with contextlib.redirect_stdout(io.StringIO()):
            self.coco = COCO(str(annotations))
        self.folder, self.flipped, self.ids = annotations.parent, flipped, sorted(self.coco.imgs)
        largest = _preprocessing(size).max_size
        self.transform = GeneralizedRCNNTransform(size, largest, [0.0] * 3, [1.0] * 3).eval()
        self.random = random.Random(0)

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, index: int) -> Loaded:
        image_id = self.ids[index]
        image = functional.to_tensor(Image.open(self.folder / self.coco.imgs[image_id]["file_name"]).convert("RGB"))
        annotations = self.coco.imgToAnns[image_id]
        masks = torch.as_tensor(np.stack([self.coco.annToMask(annotation) for annotation in annotations]))
        boxes = torch.as_tensor([annotation["bbox"] for annotation in annotations], dtype=torch.float32)
        boxes[:, 2:] += boxes[:, :2]
        if self.flipped and self.random.random() < 0.5:
            image, masks = functional.hflip(image), functional.hflip(masks)
            boxes[:, [0, 2]] = image.shape[-1] - boxes[:, [2, 0]]
        labels = torch.as_tensor([annotation["category_id"] for annotation in annotations])
        target = {"boxes": boxes, "labels": labels, "masks": masks, "image_id": torch.tensor(image_id)}
        image, resized = self.transform.resize(image, target)
        return image, resized["masks"]


def check_samples(ours: Sequence[Loaded], theirs: Sequence[Loaded]) -> float:
    """Return the IoU of all masks together; DataError below :data:`MIN_IOU`, if images differ by more than
    :data:`MAX_PIXEL_DIFFERENCE`, or if sizes differ."""
    both, either = 0, 0
    for (image, masks), (other_image, other_masks) in zip(ours, theirs, strict=True):
        if image.shape != other_image.shape or masks.shape != other_masks.shape:
            raise DataError(
                f"samples of {list(image.shape)} and {list(masks.shape)}, the baseline's of "
                f"{list(other_image.shape)} and {list(other_masks.shape)}; the comparison is not of equal work"
            )
        difference = float((image - other_image).abs().mean())
        if difference > MAX_PIXEL_DIFFERENCE:
            raise DataError(
                f"images differ from the baseline's by {difference:.3f} on average; at most {MAX_PIXEL_DIFFERENCE} "
                "is allowed"
            )
        both += int((masks & other_masks).sum())
        either += int((masks | other_masks).sum())
    iou = both / max(1, either)
    if iou < MIN_IOU:
        raise DataError(f"masks have an IoU of {iou:.3f} with the baseline's; at least {MIN_IOU} is required")
    return iou


def _preprocessing(size: int) -> Preprocessing:
    """Resize the shorter side to ``size``, with torchvision's limit for the longer side."""
    return Preprocessing(size, round(size * 1333 / 800))


def _per_second(comparison: Comparison, images: int) -> str:
    ours, theirs = (images / statistics.median(seconds) for seconds in (comparison.ours, comparison.theirs))
    return f"{ours:.3g} images per second and core, the baseline {theirs:.3g}"
