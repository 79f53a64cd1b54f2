"""Masks: pixels, run lengths and polygons. Every call of pycocotools on foreign numbers goes through a check here.

pycocotools trusts its input: a NaN in a polygon takes 23 GB, and run lengths that are too short decode to
uninitialised memory (cocoapi #380). So ``check_polygons`` and ``check_rle`` come first.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
from pycocotools import mask as coco_mask

from detseg.errors import DataError
from detseg.structures import RLE

UInt8 = npt.NDArray[np.uint8]
Ring = npt.NDArray[np.float64]
Outline = list[Ring] | RLE
"""Polygons (rings float64 [V, 2], their union is the mask) or a compressed RLE."""

MAX_PIXELS = 2**31 - 1
"""Pixels of one mask: pycocotools counts in 32 bits."""

_NO_RUNS = np.zeros(0, np.int64)

REACH = 4
"""A polygon's coordinates may lie this many image sides away; pycocotools' time and memory grow with the distance."""


def mask_to_rle(mask: npt.NDArray[Any]) -> RLE:
    """[H, W] of any number or bool type, non-zero is the object -> compressed RLE."""
    return coco_mask.encode(np.asfortranarray(np.asarray(mask) != 0, dtype=np.uint8))


def rle_to_mask(rle: RLE) -> UInt8:
    """Compressed RLE (checked before, or our own) -> uint8 [H, W] in {0, 1}, contiguous."""
    crop, top, left = rle_crop(rle)
    mask = np.zeros(rle["size"], np.uint8)
    mask[top : top + crop.shape[0], left : left + crop.shape[1]] = crop
    return mask


def rle_crop(rle: RLE) -> tuple[UInt8, int, int]:
    """The pixels of a compressed RLE (checked before, or our own) inside the smallest box around them.

    Only the columns of the box are ever decoded.

    Returns:
        uint8 [h, w] in {0, 1}, and the row and column of its top left corner; [0, 0] for a mask without a pixel.
    """
    height, width = rle["size"]
    text = rle["counts"]
    runs = _decoded_counts(text.encode() if isinstance(text, str) else text, "RLE") if height and width else _NO_RUNS
    if len(runs) < 2:
        return np.zeros((0, 0), np.uint8), 0, 0
    if not runs[1:].all():  # a run of no pixels: allowed, seldom, and pycocotools' box would be too large
        mask = np.asarray(coco_mask.decode(rle), np.uint8)
        x1, y1, x2, y2 = masks_to_boxes(mask[None])[0].astype(int).tolist()
        return np.ascontiguousarray(mask[y1:y2, x1:x2]), y1, x1
    left, top, columns, rows = (int(number) for number in coco_mask.toBbox(rle))
    runs[0] -= left * height
    if len(runs) % 2:  # zeros at the end
        runs[-1] -= (width - left - columns) * height
    values = np.zeros(len(runs), np.uint8)
    values[1::2] = 1
    pixels = np.repeat(values, runs).reshape(columns, height)
    return np.asarray(cv2.transpose(pixels[:, top : top + rows]), np.uint8), top, left


def check_rle(rle: Mapping[str, Any], size_hw: tuple[int, int], where: str) -> RLE:
    """Run lengths from a file -> compressed RLE that pycocotools can be trusted with.

    Args:
        rle: ``{"size": [H, W], "counts": list of int | str | bytes}``, uncompressed or compressed.
        size_hw: height and width of the image.
        where: beginning of the message: file, annotation, image.

    Raises:
        DataError: another size than the image's, negative or corrupt counts, or counts that do not add up to H * W.
    """
    height, width = size_hw
    size = tuple(rle["size"])
    if size != (height, width):
        raise DataError(
            f"{where}: RLE of size {list(size)} (height, width) in an image of height {height} and width {width}; "
            "the mask belongs to another image or size: make it again from this one"
        )
    _check_pixels(size_hw, where)
    counts = rle["counts"]
    text = counts.encode("ascii", "replace") if isinstance(counts, str) else counts
    runs = _decoded_counts(text, where) if isinstance(text, bytes) else _listed_counts(counts, where)
    total = int(runs.sum())
    if (runs < 0).any() or total != height * width:
        what = "are negative in part" if (runs < 0).any() else f"add up to {total}"
        raise DataError(
            f"{where}: the counts of the RLE {what}, the image has {height} x {width} = {height * width} pixels; "
            "the mask is corrupt: make it again"
        )
    if isinstance(text, bytes):
        return {"size": [height, width], "counts": text}
    return coco_mask.frPyObjects({"size": [height, width], "counts": runs.tolist()}, height, width)


def _check_pixels(size_hw: tuple[int, int], where: str) -> None:
    if size_hw[0] * size_hw[1] > MAX_PIXELS:
        raise DataError(f"{where}: a mask of {size_hw[1]} x {size_hw[0]} pixels is too large; cut the image into tiles")


def _listed_counts(counts: Sequence[int], where: str) -> npt.NDArray[np.int64]:
    numbers = np.asarray(counts)
    if numbers.size and (numbers.ndim != 1 or not np.issubdtype(numbers.dtype, np.integer)):
        raise DataError(f"{where}: the counts of the RLE are not a list of whole numbers; make the mask again")
    if numbers.size and int(numbers.max()) > MAX_PIXELS:
        raise DataError(f"{where}: a count of the RLE is {int(numbers.max())}, more than any image has pixels")
    return numbers.astype(np.int64)


def _decoded_counts(text: bytes, where: str) -> npt.NDArray[np.int64]:
    """Run lengths of COCO's compressed string (``rleFrString`` of maskApi.c), without pycocotools.

    Each number is little-endian in groups of five bits with a continuation bit, plus 48; from the fourth number on it
    is the difference to the number two places before.
    """
    codes = np.frombuffer(text, np.uint8).astype(np.int64) - 48
    last = (codes & 32) == 0
    if not len(codes) or codes.min() < 0 or codes.max() > 63 or not last[-1]:
        raise DataError(f"{where}: the counts of the RLE are not COCO's compressed form; make the mask again")
    stops = np.flatnonzero(last)
    starts = np.concatenate([[0], stops[:-1] + 1])
    lengths = stops - starts + 1
    if lengths.max() > 7:  # 7 x 5 bits hold every 32-bit number
        raise DataError(f"{where}: the counts of the RLE hold a number that is too large; make the mask again")
    shifts = 5 * (np.arange(len(codes)) - np.repeat(starts, lengths))
    numbers = np.add.reduceat((codes & 31) << shifts, starts)
    numbers -= np.where(codes[stops] & 16, np.left_shift(1, 5 * lengths), 0)  # the last group carries the sign
    numbers[1::2] = np.cumsum(numbers[1::2])
    numbers[2::2] = np.cumsum(numbers[2::2])
    return numbers


def check_polygons(polygons: Sequence[Any], size_hw: tuple[int, int], where: str) -> list[Ring]:
    """Rings from a file -> float64 [V, 2] rings that pycocotools can be trusted with.

    Args:
        polygons: rings as flat x, y, x, y, ... numbers or [V, 2] points, in pixels.
        size_hw: height and width of the image.
        where: beginning of the message.

    Raises:
        DataError: no ring; more pixels than ``MAX_PIXELS``; an odd count or fewer than three points; a number that is
            not finite or lies further away than ``REACH`` times the longer side.
    """
    if not len(polygons):
        raise DataError(f"{where}: the polygon has no ring")
    _check_pixels(size_hw, where)
    limit = REACH * max(size_hw)
    rings = []
    for number, polygon in enumerate(polygons):
        ring = np.asarray(polygon, np.float64).ravel()
        if ring.size % 2 or ring.size < 6:
            raise DataError(
                f"{where}: ring {number} of the polygon has {ring.size} numbers; x, y of at least three points are "
                "needed: complete or remove it"
            )
        if not np.abs(ring).max() <= limit:  # also false for NaN
            bad = ring[~(np.abs(ring) <= limit)][0]
            raise DataError(
                f"{where}: ring {number} of the polygon has the coordinate {bad:g} in an image of height {size_hw[0]} "
                f"and width {size_hw[1]}; correct it (pixels are expected)"
            )
        rings.append(ring.reshape(-1, 2))
    return rings


def segmentation_to_rle(segmentation: Outline, size_hw: tuple[int, int]) -> RLE:
    """One RLE of the whole image; polygons are filled by pycocotools, as ``COCO.annToRLE`` does."""
    if isinstance(segmentation, dict):
        return segmentation
    height, width = size_hw
    return coco_mask.merge(coco_mask.frPyObjects([ring.ravel() for ring in segmentation], height, width))


def rasterise(segmentation: Outline, from_hw: tuple[int, int], to_hw: tuple[int, int]) -> UInt8:
    """uint8 [H, W] in {0, 1}: the mask of an image of ``from_hw`` after that image is resized to ``to_hw``.

    Polygons are scaled as points and then filled, so nothing is lost; at ``from_hw == to_hw`` the result is that of
    ``COCO.annToMask`` bit for bit. An RLE is decoded and resized to the nearest pixel by pixel centres, which is how
    ``cv2.INTER_LINEAR`` aligns the image.

    Args:
        segmentation: checked polygons, or a compressed RLE of size ``from_hw``.
    """
    return rasterise_all([segmentation], from_hw, to_hw)[0][0]


def rasterise_all(
    segmentations: Sequence[Outline], from_hw: tuple[int, int], to_hw: tuple[int, int]
) -> tuple[UInt8, npt.NDArray[np.float32], npt.NDArray[np.float32]]:
    """The masks of N outlines as :func:`rasterise` makes each, with their boxes and areas.

    Only the box around each outline is decoded, resized and measured.

    Returns:
        uint8 [N, H, W] in {0, 1}, float32 [N, 4] as :func:`masks_to_boxes` gives them, float32 [N] pixels.
    """
    masks = np.zeros((len(segmentations), *to_hw), np.uint8)
    boxes, areas = np.zeros((len(masks), 4), np.float32), np.zeros(len(masks), np.float32)
    for i, segmentation in enumerate(segmentations):
        crop, top, left = _crop(segmentation, tuple(from_hw), tuple(to_hw))
        height, width = crop.shape
        if crop.size:
            masks[i, top : top + height, left : left + width] = crop
            boxes[i] = left, top, left + width, top + height
            areas[i] = cv2.countNonZero(crop)
    return masks, boxes, areas


def _crop(segmentation: Outline, from_hw: tuple[int, ...], to_hw: tuple[int, ...]) -> tuple[UInt8, int, int]:
    """The pixels of the resized mask inside the smallest box around them, and the box's top and left."""
    if not isinstance(segmentation, dict):
        if from_hw != to_hw:
            scale = np.array([to_hw[1] / from_hw[1], to_hw[0] / from_hw[0]])
            segmentation = [ring * scale for ring in segmentation]
        return rle_crop(segmentation_to_rle(segmentation, (to_hw[0], to_hw[1])))
    size = tuple(segmentation["size"])
    assert size == from_hw, f"RLE of {size} in an image of {from_hw}"
    crop, top, left = rle_crop(segmentation)
    if from_hw == to_hw or not crop.size:
        return crop, top, left
    rows, columns = _nearest(from_hw[0], to_hw[0]), _nearest(from_hw[1], to_hw[1])
    y1, y2 = np.searchsorted(rows, (top, top + crop.shape[0])).tolist()
    x1, x2 = np.searchsorted(columns, (left, left + crop.shape[1])).tolist()
    resized = crop[rows[y1:y2, None] - top, columns[x1:x2] - left]
    # what is thin may vanish at an edge
    inner_x1, inner_y1, inner_x2, inner_y2 = masks_to_boxes(resized[None])[0].astype(int).tolist()
    return np.ascontiguousarray(resized[inner_y1:inner_y2, inner_x1:inner_x2]), y1 + inner_y1, x1 + inner_x1


@lru_cache(maxsize=256)
def _nearest(before: int, after: int) -> npt.NDArray[np.int32]:
    """int32 [after], ascending: which of ``before`` pixels in a row each pixel of the resized row shows."""
    ramp = np.arange(before, dtype=np.int32)[None]
    return cv2.resize(ramp, (after, 1), interpolation=cv2.INTER_NEAREST_EXACT)[0]


def segmentation_area(segmentation: Outline, size_hw: tuple[int, int]) -> float:
    """Square pixels inside the frame of ``size_hw``."""
    return float(coco_mask.area(segmentation_to_rle(segmentation, size_hw)))


def segmentation_box(segmentation: Outline) -> tuple[float, float, float, float]:
    """x, y, width, height around the points of polygons or the pixels of an RLE; width and height 0 if it is empty."""
    if isinstance(segmentation, dict):
        x, y, width, height = coco_mask.toBbox(segmentation).tolist()
        return x, y, width, height
    points = np.concatenate(segmentation)
    (x1, y1), (x2, y2) = points.min(axis=0).tolist(), points.max(axis=0).tolist()
    return x1, y1, x2 - x1, y2 - y1


def masks_to_boxes(masks: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
    """[N, H, W], non-zero is the object -> float32 [N, 4] xyxy around it, zeros for an empty mask.

    Half-open: a pixel in column x covers [x, x + 1), so a mask one pixel wide has a box one pixel wide
    (``torchvision.ops.masks_to_boxes`` gives 0).
    """
    masks = np.asarray(masks)
    number, height, width = masks.shape
    boxes = np.zeros((number, 4), np.float32)
    if not boxes.size or not height or not width:
        return boxes
    if masks.dtype != np.bool_ and masks.dtype != np.uint8:
        masks = masks != 0
    touched = masks.view(np.uint8).max(axis=2)  # what lies in one row is searched ten times faster than a column
    for box, mask, in_row in zip(boxes, masks.view(np.uint8), touched, strict=True):
        rows = np.flatnonzero(in_row)
        if len(rows):
            columns = np.flatnonzero(mask[rows[0] : rows[-1] + 1].max(axis=0))
            box[:] = columns[0], rows[0], columns[-1] + 1, rows[-1] + 1
    return boxes


def pack_bits(masks: npt.NDArray[Any]) -> UInt8:
    """[N, H, W], non-zero is the object -> uint8 [ceil(N / 8), H, W]: mask i is bit i % 8 of plane i // 8.

    Transforms that move whole pixels to the nearest place carry eight masks in one plane.
    """
    masks = np.asarray(masks)
    planes = np.zeros((-(-len(masks) // 8), *masks.shape[1:]), np.uint8)
    there = np.empty(masks.shape[1:], np.bool_)
    # Doubled and the next bit set, from the last mask to the first: 30 times faster than np.packbits along this axis.
    for i in reversed(range(len(masks))):
        plane = planes[i // 8]
        np.add(plane, plane, out=plane)
        np.not_equal(masks[i], 0, out=there)
        np.bitwise_or(plane, there.view(np.uint8), out=plane)
    return planes


def unpack_bits(planes: UInt8, n: int) -> UInt8:
    """uint8 [ceil(n / 8), H, W] -> uint8 [n, H, W] in {0, 1}: the inverse of :func:`pack_bits`."""
    assert len(planes) == -(-n // 8), f"{len(planes)} planes do not hold {n} masks"
    masks = np.empty((n, *planes.shape[1:]), np.uint8)
    for i in range(n):
        np.right_shift(planes[i // 8], np.uint8(i % 8), out=masks[i])
    masks &= 1
    return masks
