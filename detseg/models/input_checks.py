"""Validate model inputs that torchvision would silently accept or crash on; errors contain the image's id."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from detseg.errors import DataError
from detseg.models.frozen_features import FrozenFeatures, Image

Target = Mapping[str, Any]

FLOAT_RANGE = (-0.25, 1.25)
"""Limits for float images: [0, 1] with a margin for the overshoot of a bicubic resize."""


def check_images(images: Sequence[Image], targets: Sequence[Target] | None = None) -> None:
    """Check that every image is uint8 or float32 in [0, 1], [3, H, W], with at least one pixel, or is features.

    Raises:
        DataError: with the position in the batch, the image_id if ``targets`` have it, and the value.
    """
    if not len(images):
        raise DataError("the batch contains no image; give at least one")
    for index, image in enumerate(images):
        if isinstance(image, FrozenFeatures):
            continue
        where = f"image {index} of the batch"
        if targets is not None and index < len(targets) and "image_id" in targets[index]:
            where += f" ({image_name(targets[index])})"
        if image.ndim != 3 or image.shape[0] != 3 or not image.numel():
            raise DataError(f"{where}: shape {list(image.shape)} is not [3, H, W] with at least one pixel")
        if image.dtype not in (torch.uint8, torch.float32):
            raise DataError(f"{where}: dtype {image.dtype}; give uint8, or float32 in [0, 1]")
        if image.is_floating_point():
            lowest, highest = (float(value) for value in image.aminmax())
            if not (lowest >= FLOAT_RANGE[0] and highest <= FLOAT_RANGE[1]):  # also true for NaN
                raise DataError(
                    f"{where}: values from {lowest:.4g} to {highest:.4g}; float images must be in [0, 1] "
                    "(divide by 255; the model does the normalisation)"
                )


def check_targets(
    images: Sequence[Image], targets: Sequence[Target] | None, num_labels: int, masks: bool, *, keypoints: int = 0
) -> None:
    """Check that every target of a detector has boxes, labels and, with ``masks``, masks of its image's size.

    Boxes must be finite float32 [N, 4] with x1 < x2 and y1 < y2, at most one pixel outside the image; labels int64 [N]
    in 1..``num_labels``; masks uint8 or bool [N, H, W] of the image's size, of 0 and 1; for a model with
    P = ``keypoints`` points (0: none) keypoints finite float32 [N, P, 3]. On a GPU a valid batch costs two
    synchronisations, with masks or keypoints three.

    Raises:
        DataError: with the image_id and the value.
    """
    if targets is None or len(targets) != len(images):
        count = "no targets" if targets is None else f"{len(targets)} targets"
        raise DataError(f"{len(images)} images but {count}; training needs one target per image")
    for image, target in zip(images, targets, strict=True):
        _check_shapes(image, target, masks, keypoints)
    boxes = torch.cat([target["boxes"] for target in targets])
    labels = torch.cat([target["labels"] for target in targets])
    sizes = [[image.shape[2] + 1, image.shape[1] + 1] for image in images for _ in range(2)]
    limits = torch.tensor(sizes, dtype=boxes.dtype, device=boxes.device).view(-1, 4)
    limits = limits.repeat_interleave(torch.tensor([len(t["boxes"]) for t in targets], device=boxes.device), dim=0)
    # each comparison is false for NaN; the limits exclude infinity
    valid = (boxes[:, :2] < boxes[:, 2:]).all(1) & (boxes >= -1).all(1) & (boxes <= limits).all(1)
    if not bool(valid.all()):
        _raise_for_box(int(valid.int().argmin()), images, targets)
    valid = (labels >= 1) & (labels <= num_labels)
    if not bool(valid.all()):
        row = int(valid.int().argmin())
        where, _ = _owner(row, targets)
        raise DataError(
            f"{where}: label {int(labels[row])} is outside 1..{num_labels} (0 is the background and never stored); "
            f"the model was built for {num_labels} classes"
        )
    if masks:
        valid = torch.stack([(target["masks"] <= 1).all() for target in targets])
        if not bool(valid.all()):
            target = targets[int(valid.int().argmin())]
            raise DataError(
                f"{image_name(target)}: masks contain the value {int(target['masks'].max())}; only 0 and 1 are valid, "
                "such as masks > 0"
            )
    if keypoints:
        valid = torch.cat([target["keypoints"] for target in targets]).isfinite().flatten(1).all(1)
        if not bool(valid.all()):
            where, _ = _owner(int(valid.int().argmin()), targets)
            raise DataError(f"{where}: a keypoint is not finite; use 0, 0, 0 for points without a label")


def image_name(target: Target) -> str:
    """Return the text that identifies a target's image in errors."""
    if "image_id" not in target:
        return "a target without image_id"
    image_id = target["image_id"]
    return f"image_id {image_id.item() if isinstance(image_id, Tensor) and image_id.numel() == 1 else image_id}"


def _check_shapes(image: Image, target: Target, masks: bool, keypoints: int) -> None:
    where = image_name(target)
    for key in ("boxes", "labels", *(["masks"] if masks else []), *(["keypoints"] if keypoints else [])):
        if key not in target:
            raise DataError(f"{where}: target has no {key!r} but {sorted(target)}; this model needs {key} for training")
        if not isinstance(target[key], Tensor):
            raise DataError(f"{where}: {key} are a {type(target[key]).__name__}; a tensor is required")
    boxes, labels = target["boxes"], target["labels"]
    if boxes.ndim != 2 or boxes.shape[1] != 4 or boxes.dtype != torch.float32:
        raise DataError(f"{where}: boxes are {boxes.dtype} {list(boxes.shape)}; float32 [N, 4] is required")
    if labels.shape != boxes.shape[:1] or labels.dtype != torch.int64:
        raise DataError(f"{where}: labels are {labels.dtype} {list(labels.shape)}; int64 [{len(boxes)}] is required")
    if masks:
        target_masks, expected_shape = target["masks"], [len(boxes), *image.shape[1:]]
        if list(target_masks.shape) != expected_shape:
            raise DataError(
                f"{where}: masks are {list(target_masks.shape)}; {expected_shape} is required to match image and boxes"
            )
        if target_masks.dtype not in (torch.uint8, torch.bool):
            raise DataError(f"{where}: masks are {target_masks.dtype}; uint8 of 0 and 1 is required")
    if keypoints:
        points = target["keypoints"]
        if points.shape != (len(boxes), keypoints, 3) or points.dtype != torch.float32:
            raise DataError(
                f"{where}: keypoints are {points.dtype} {list(points.shape)}; float32 {[len(boxes), keypoints, 3]} is "
                f"required (x, y, visibility): the model was built for {keypoints} points"
            )


def _owner(row: int, targets: Sequence[Target]) -> tuple[str, int]:
    """Return the name of the instance in row ``row`` of all boxes, with its image, and the image's position."""
    for index, target in enumerate(targets):
        if row < len(target["boxes"]):
            return f"{image_name(target)}, instance {row}", index
        row -= len(target["boxes"])
    raise AssertionError(row)


def _raise_for_box(row: int, images: Sequence[Image], targets: Sequence[Target]) -> None:
    box = torch.cat([target["boxes"] for target in targets])[row].tolist()
    where, index = _owner(row, targets)
    height, width = images[index].shape[1:]
    raise DataError(
        f"{where}: box {[round(value, 2) for value in box]} must be finite, with x1 < x2 and y1 < y2 (xyxy), inside "
        f"the image of {width} x {height} pixels; remove it, clip it, or convert it to pixels of this image"
    )
