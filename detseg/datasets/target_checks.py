"""Check the format of a sample; applied to every ``dataset[i]``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from detseg.errors import DataError


def check_sample(
    image: Any, target: Mapping[str, Any], *, num_labels: int, where: str, field_sizes: tuple[int, ...] = ()
) -> None:
    """Raise unless ``(image, target)`` has the format of a sample.

    Args:
        image: must be uint8 [3, H, W].
        target: for detection ``boxes`` float32 [N, 4] with 0 <= x1 < x2 <= W, ``labels`` int64 [N] in 1..K,
            ``area`` float32 [N], ``iscrowd`` uint8 [N] of zeros, ``image_id`` int64 []; if used ``masks`` uint8
            [N, H, W] in {0, 1} and ``keypoints`` float32 [N, P, 3]. For classification ``class_index`` int64 [] in
            0..K-1, or [T] with -1 for fields without a class, and ``image_id``.
        num_labels: K.
        where: the sample's name in error messages.
        field_sizes: K of each of T label fields; ``class_index`` must then be [T].

    Raises:
        DataError: the message states the entry, its value and the requirement.
    """
    sizes = _check_tensor(where, "image", image, torch.uint8, (3, "H", "W"), {})
    if not image.numel():
        raise DataError(f"{where}: the image has shape {list(image.shape)} and no pixels; remove it")
    _check_tensor(where, "image_id", _entry(where, target, "image_id"), torch.int64, (), {})
    if "class_index" in target:
        _check_class_index(where, target["class_index"], field_sizes or (num_labels,))
        return
    boxes, labels = _entry(where, target, "boxes"), _entry(where, target, "labels")
    _check_tensor(where, "boxes", boxes, torch.float32, ("N", 4), sizes)
    _check_tensor(where, "labels", labels, torch.int64, ("N",), sizes)
    _check_tensor(where, "area", _entry(where, target, "area"), torch.float32, ("N",), sizes)
    _check_tensor(where, "iscrowd", _entry(where, target, "iscrowd"), torch.uint8, ("N",), sizes)
    _check_boxes(where, boxes, image)
    invalid = torch.nonzero((labels < 1) | (labels > num_labels)).flatten().tolist()
    if invalid:
        raise DataError(
            f"{where}: label {int(labels[invalid[0]])} of instance {invalid[0]} is outside 1..{num_labels}; "
            "0 is background and never stored"
        )
    if not torch.isfinite(target["area"]).all() or (target["area"] < 0).any():
        raise DataError(f"{where}: areas {target['area'].tolist()[:5]} must be finite and not negative")
    if target["iscrowd"].any():
        raise DataError(f"{where}: a crowd instance in a training sample; exclude crowd instances")
    if "masks" in target:
        _check_tensor(where, "masks", target["masks"], torch.uint8, ("N", "H", "W"), sizes)
        if target["masks"].numel() and int(target["masks"].max()) > 1:
            raise DataError(f"{where}: masks have the value {int(target['masks'].max())}; use 0 and 1")
    if "keypoints" in target:
        _check_keypoints(where, target["keypoints"], image, sizes)


def _entry(where: str, target: Mapping[str, Any], key: str) -> Any:
    if key not in target:
        raise DataError(f"{where}: the target has no {key!r}, only {', '.join(sorted(target)) or 'nothing'}")
    return target[key]


def _check_tensor(
    where: str, key: str, value: Any, dtype: torch.dtype, shape: tuple[int | str, ...], sizes: dict[str, int]
) -> dict[str, int]:
    """DataError unless ``value`` is a tensor of ``dtype`` and ``shape``; a letter must have the same size everywhere.

    Returns:
        ``sizes``, including new letters.
    """
    expected = f"{str(dtype).removeprefix('torch.')} [{', '.join(str(sizes.get(str(side), side)) for side in shape)}]"
    if not isinstance(value, torch.Tensor):
        raise DataError(f"{where}: {key} is a {type(value).__name__}; it must be a tensor, {expected}")
    actual = f"{str(value.dtype).removeprefix('torch.')} {list(value.shape)}"
    if value.dtype != dtype or value.ndim != len(shape):
        raise DataError(f"{where}: {key} is {actual}; it must be {expected}")
    for side, length in zip(shape, value.shape, strict=True):
        if (side if isinstance(side, int) else sizes.setdefault(side, length)) != length:
            raise DataError(f"{where}: {key} is {actual}; it must be {expected}")
    return sizes


def _check_boxes(where: str, boxes: torch.Tensor, image: torch.Tensor) -> None:
    height, width = image.shape[1:]
    limits = torch.tensor([width, height], dtype=torch.float32)
    valid = (boxes[:, :2] >= 0).all(1) & (boxes[:, :2] < boxes[:, 2:]).all(1) & (boxes[:, 2:] <= limits).all(1)
    invalid = torch.nonzero(~valid).flatten().tolist()  # includes NaN, which compares as false
    if invalid:
        raise DataError(
            f"{where}: box {boxes[invalid[0]].tolist()} of instance {invalid[0]} is not 0 <= x1 < x2 <= {width}, "
            f"0 <= y1 < y2 <= {height}; clip or remove it"
        )


def _check_keypoints(where: str, keypoints: Any, image: torch.Tensor, sizes: dict[str, int]) -> None:
    _check_tensor(where, "keypoints", keypoints, torch.float32, ("N", "P", 3), sizes)
    height, width = image.shape[1:]
    x, y, visibility = keypoints.unbind(-1)
    if not torch.isin(visibility, torch.tensor([0.0, 1.0, 2.0])).all():
        raise DataError(f"{where}: keypoint visibility must be 0, 1 or 2, not {visibility.unique().tolist()[:5]}")
    inside = (x >= 0) & (x <= width) & (y >= 0) & (y <= height)
    if not (inside | (visibility == 0)).all():
        raise DataError(f"{where}: a keypoint is outside the {width} x {height} image; set its visibility to 0")


def _check_class_index(where: str, class_index: Any, sizes: tuple[int, ...]) -> None:
    fields = len(sizes) > 1
    _check_tensor(where, "class_index", class_index, torch.int64, (len(sizes),) if fields else (), {})
    lowest = -1 if fields else 0
    if ((class_index < lowest) | (class_index >= torch.tensor(sizes if fields else sizes[0]))).any():
        limits = ", ".join(f"{lowest}..{size - 1}" for size in sizes)
        raise DataError(f"{where}: class_index {class_index.tolist()} is outside {limits}")
