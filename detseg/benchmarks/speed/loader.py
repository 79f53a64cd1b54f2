"""From files to samples: an image and its masks at the network's size."""

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
from detseg.benchmarks.speed.interleaved_timing import Comparison, in_turn, one_core
from detseg.benchmarks.speed.scenes_set import scene_set
from detseg.datasets import Dataset, SampleKey, preset
from detseg.datasets.decoded_images import DecodedImages
from detseg.errors import DataError
from detseg.preprocess import Preprocessing

BASELINE = "PIL, annToMask, torchvision's resize of image and masks"
ALIKE = 0.95
"""IoU of the masks of both ways, all pixels of all masks together: ours scales the polygon, the baseline scales its pixels
and cuts off what is below 1, so that its masks lose half a pixel of border."""
CHECKED = 4  # samples that are compared
CLOSE = 0.05
"""Mean difference of pixels in [0, 1]: the decoders, and the order of reducing and rounding, differ."""

Loaded = tuple[Tensor, Tensor]
"""float32 [3, h, w] in [0, 1] and uint8 [N, h, w]."""


def compare(device: torch.device) -> list[Comparison]:
    """Loading is the CPU's work, whatever ``device``."""
    with one_core(), TemporaryDirectory() as folder:
        annotations = scene_set(Path(folder), 12, (960, 1280), 12)
        found = [
            loading(annotations, 480),
            loading(annotations, 480, mirrored=True),
            loading(annotations, 800),
            loading(annotations, 800, mirrored=True),
        ]
        for size in (480, 800):
            found += [again(annotations, size, against_baseline=against_baseline) for against_baseline in (True, False)]
    return found


def loading(annotations: Path, size: int, *, mirrored: bool = False, turns: int = 5) -> Comparison:
    """All samples of a set, once a turn; with ``mirrored`` a random half of them is mirrored.

    Raises:
        DataError: the two ways do not agree.
    """
    ours, theirs = Ours(annotations, size, mirrored=mirrored), Baseline(annotations, size, mirrored=mirrored)
    compared = range(min(CHECKED, len(theirs)))
    baseline = Ours(annotations, size), Baseline(annotations, size)  # each way draws its own mirrors
    agreement = check_samples(*([way[i] for i in compared] for way in baseline))
    found = in_turn(
        f"load {len(theirs)} images and masks, to {size}{', mirrored' if mirrored else ''}",
        lambda: [ours[i] for i in range(len(theirs))],
        lambda: [theirs[i] for i in range(len(theirs))],
        baseline=BASELINE + (", hflip" if mirrored else ""),
        target=5,
        turns=turns,
    )
    return replace(found, note=f"{_per_second(found, len(theirs))}; IoU of masks with the baseline's {agreement:.3f}")


def again(annotations: Path, size: int, *, against_baseline: bool, turns: int = 5) -> Comparison:
    """All samples of a set when their images were decoded before, against the baseline, or ours without keeping."""
    table = read_coco(annotations)
    with TemporaryDirectory() as folder:
        decoded = DecodedImages(table, _preprocessing(size), folder)
        kept, other = Ours(annotations, size, decoded=decoded), Ours(annotations, size)
        if any(not torch.equal(*pair) for i in range(len(table)) for pair in zip(kept[i], other[i], strict=True)):
            raise DataError("a sample with decoded images is not the one without them")
        theirs = Baseline(annotations, size) if against_baseline else other
        found = in_turn(
            f"load {len(table)} images and masks again, to {size}",
            lambda: [kept[i] for i in range(len(table))],
            lambda: [theirs[i] for i in range(len(table))],
            baseline=BASELINE if against_baseline else "the same without keeping decoded images",
            target=5 if against_baseline else None,
            turns=turns,
        )
    return replace(found, note=f"{_per_second(found, len(table))}; equal samples with and without")


class Ours:
    """This project's samples, with the conversion to float that its models do on the device."""

    def __init__(
        self, annotations: Path, size: int, *, mirrored: bool = False, decoded: DecodedImages | None = None
    ) -> None:
        table: AnnotationTable = read_coco(annotations) if decoded is None else decoded.table
        augment = preset("flip", "segment") if mirrored else None
        self.dataset = Dataset(table, _preprocessing(size), task="segment", augment=augment, decoded=decoded)
        self.asked = 0

    def __getitem__(self, index: int) -> Loaded:
        self.asked += 1
        image, target = self.dataset[SampleKey(index, self.asked)]  # as an epoch of its own: another draw
        return image.float().div_(255), target["masks"]


class Baseline:
    """The usual dataset class on PIL and pycocotools, and the resize that torchvision's models begin with."""

    def __init__(self, annotations: Path, size: int, *, mirrored: bool = False) -> None:
        with contextlib.redirect_stdout(io.StringIO()):
            self.coco = COCO(str(annotations))
        self.folder, self.mirrored, self.ids = annotations.parent, mirrored, sorted(self.coco.imgs)
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
        if self.mirrored and self.random.random() < 0.5:
            image, masks = functional.hflip(image), functional.hflip(masks)
            boxes[:, [0, 2]] = image.shape[-1] - boxes[:, [2, 0]]
        labels = torch.as_tensor([annotation["category_id"] for annotation in annotations])
        target = {"boxes": boxes, "labels": labels, "masks": masks, "image_id": torch.tensor(image_id)}
        image, resized = self.transform.resize(image, target)
        return image, resized["masks"]


def check_samples(ours: Sequence[Loaded], theirs: Sequence[Loaded]) -> float:
    """IoU of all masks together; DataError below :data:`ALIKE`, or if images differ by more than :data:`CLOSE`, or
    if sizes do."""
    both, either = 0, 0
    for (image, masks), (other_image, other_masks) in zip(ours, theirs, strict=True):
        if image.shape != other_image.shape or masks.shape != other_masks.shape:
            raise DataError(
                f"samples of {list(image.shape)} and {list(masks.shape)}, the baseline's of {list(other_image.shape)} and "
                f"{list(other_masks.shape)}; the comparison is not of equal work"
            )
        difference = float((image - other_image).abs().mean())
        if difference > CLOSE:
            raise DataError(
                f"images differ from the baseline's by {difference:.3f} on average; at most {CLOSE} is wanted"
            )
        both += int((masks & other_masks).sum())
        either += int((masks | other_masks).sum())
    iou = both / max(1, either)
    if iou < ALIKE:
        raise DataError(f"masks have an IoU of {iou:.3f} with the baseline's; at least {ALIKE} is wanted")
    return iou


def _preprocessing(size: int) -> Preprocessing:
    """The shorter side to ``size``, the longer to torchvision's limit for it."""
    return Preprocessing(size, round(size * 1333 / 800))


def _per_second(found: Comparison, images: int) -> str:
    ours, theirs = (images / statistics.median(seconds) for seconds in (found.ours, found.theirs))
    return f"{ours:.3g} images per second and core, the baseline {theirs:.3g}"
