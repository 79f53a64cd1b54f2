"""Check and convert masks: pixels, run-length encoding (RLE) and polygons.

pycocotools does not validate its input: a NaN in a polygon allocates 23 GB, and run lengths that are too short decode
to uninitialised memory (cocoapi #380). So untrusted input must pass ``check_polygons`` or ``check_rle`` first.
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
"""Polygons (rings float64 [V, 2]; the mask is their union) or a compressed RLE."""

MAX_PIXELS = 2**31 - 1
"""Most pixels of one mask: pycocotools counts in 32 bits."""

_NO_RUNS = np.zeros(0, np.int64)

MAX_PERIMETER = 5_000_000
"""Longest ring of a polygon in pixels; pycocotools needs 80 bytes per pixel."""

REACH = 4
"""Largest absolute polygon coordinate, in longer image sides; pycocotools' time and memory grow with the distance."""


def mask_to_rle(mask: npt.NDArray[Any]) -> RLE:
    """[H, W] of any numeric or bool dtype, non-zero is the object -> compressed RLE."""
    return coco_mask.encode(np.asfortranarray(np.asarray(mask) != 0, dtype=np.uint8))


def rle_to_mask(rle: RLE) -> UInt8:
    """Compressed RLE (already checked, or created here) -> uint8 [H, W] in {0, 1}, contiguous."""
    crop, top, left = rle_crop(rle)
    mask = np.zeros(rle["size"], np.uint8)
    mask[top : top + crop.shape[0], left : left + crop.shape[1]] = crop
    return mask


def rle_crop(rle: RLE) -> tuple[UInt8, int, int]:
    """The pixels of a compressed RLE (already checked, or created here) inside their tight bounding box.

    Only the columns of the box are decoded.

    Returns:
        uint8 [h, w] in {0, 1}, and the row and column of its top-left corner; shape [0, 0] for an empty mask.
    """
    height, width = rle["size"]
    text = rle["counts"]
    runs = _decoded_counts(text.encode() if isinstance(text, str) else text, "RLE") if height and width else _NO_RUNS
    if len(runs) < 2:
        return np.zeros((0, 0), np.uint8), 0, 0
    if not runs[1:].all():  # a run of length 0: allowed but rare, and pycocotools' box would be too large
        mask = np.asarray(coco_mask.decode(rle), np.uint8)
        x1, y1, x2, y2 = masks_to_boxes(mask[None])[0].astype(int).tolist()
        return np.ascontiguousarray(mask[y1:y2, x1:x2]), y1, x1
    left, top, columns, rows = (int(value) for value in coco_mask.toBbox(rle))
    runs[0] -= left * height
    if len(runs) % 2:  # zeros at the end
        runs[-1] -= (width - left - columns) * height
    values = np.zeros(len(runs), np.uint8)
    values[1::2] = 1
    pixels = np.repeat(values, runs).reshape(columns, height)
    return np.asarray(cv2.transpose(pixels[:, top : top + rows]), np.uint8), top, left


def check_rle(rle: Mapping[str, Any], size_hw: tuple[int, int], where: str) -> RLE:
    """Run lengths from a file -> compressed RLE that is safe for pycocotools.

    Args:
        rle: ``{"size": [H, W], "counts": list of int | str | bytes}``, uncompressed or compressed.
        size_hw: height and width of the image.
        where: prefix of error messages: file, annotation, image.

    Raises:
        DataError: the size differs from the image's, counts are negative or corrupt, or do not add up to H * W.
    """
    height, width = size_hw
    size = tuple(rle["size"])
    if size != (height, width):
        raise DataError(
            f"{where}: RLE of size {list(size)} (height, width) in an image of height {height} and width {width}; "
            "the mask belongs to another image or size: recreate it from this image"
        )
    _check_pixels(size_hw, where)
    counts = rle["counts"]
    text = counts.encode("ascii", "replace") if isinstance(counts, str) else counts
    runs = _decoded_counts(text, where) if isinstance(text, bytes) else _listed_counts(counts, where)
    total = int(runs.sum())
    if (runs < 0).any() or total != height * width:
        problem = "contain negative numbers" if (runs < 0).any() else f"add up to {total}"
        raise DataError(
            f"{where}: the counts of the RLE {problem}, the image has {height} x {width} = {height * width} pixels; "
            "the mask is corrupt: recreate it"
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
        raise DataError(f"{where}: the counts of the RLE are not a list of integers; recreate the mask")
    if numbers.size and int(numbers.max()) > MAX_PIXELS:
        raise DataError(
            f"{where}: a count of the RLE is {int(numbers.max())}, more than the pixels of any image; recreate the mask"
        )
    return numbers.astype(np.int64)


def _decoded_counts(text: bytes, where: str) -> npt.NDArray[np.int64]:
    """Run lengths of COCO's compressed string (``rleFrString`` of maskApi.c), without pycocotools.

    Each number is little-endian in groups of five bits with a continuation bit, plus 48; from the fourth number on, it
    is stored as the difference from the number two positions earlier.
    """
    codes = np.frombuffer(text, np.uint8).astype(np.int64) - 48
    last = (codes & 32) == 0
    if not len(codes) or codes.min() < 0 or codes.max() > 63 or not last[-1]:
        raise DataError(f"{where}: the counts of the RLE are not in COCO's compressed format; recreate the mask")
    stops = np.flatnonzero(last)
    starts = np.concatenate([[0], stops[:-1] + 1])
    lengths = stops - starts + 1
    if lengths.max() > 7:  # 7 x 5 bits hold every 32-bit number
        raise DataError(f"{where}: the counts of the RLE contain a number that is too large; recreate the mask")
    shifts = 5 * (np.arange(len(codes)) - np.repeat(starts, lengths))
    numbers = np.add.reduceat((codes & 31) << shifts, starts)
    numbers -= np.where(codes[stops] & 16, np.left_shift(1, 5 * lengths), 0)  # the last group contains the sign
    numbers[1::2] = np.cumsum(numbers[1::2])
    numbers[2::2] = np.cumsum(numbers[2::2])
    return numbers


def check_polygons(polygons: Sequence[Any], size_hw: tuple[int, int], where: str) -> list[Ring]:
    """Rings from a file -> float64 [V, 2] rings that are safe for pycocotools.

    Args:
        polygons: rings as flat x, y, x, y, ... numbers or [V, 2] points, in pixels.
        size_hw: height and width of the image.
        where: prefix of error messages.

    Raises:
        DataError: no ring; more pixels than ``MAX_PIXELS``; an odd number of coordinates or fewer than three points;
            a coordinate that is not finite or whose absolute value exceeds ``REACH`` times the longer side; a ring
            longer than ``MAX_PERIMETER``.
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
                f"{where}: ring {number} of the polygon has {ring.size} numbers; at least three x, y points are "
                "needed: complete or remove it"
            )
        if not np.abs(ring).max() <= limit:  # the comparison is also false for NaN
            invalid = ring[~(np.abs(ring) <= limit)][0]
            raise DataError(
                f"{where}: ring {number} of the polygon has the coordinate {invalid:g} in an image of height "
                f"{size_hw[0]} and width {size_hw[1]}; correct it (coordinates are in pixels)"
            )
        points = ring.reshape(-1, 2)
        if len(points) * 2 * limit > MAX_PERIMETER:  # else it is shorter anyway
            length = np.abs(np.diff(points, axis=0, append=points[:1])).max(axis=1).sum()
            if length > MAX_PERIMETER:
                raise DataError(
                    f"{where}: ring {number} of the polygon is {length:.0f} pixels long, more than {MAX_PERIMETER}; "
                    "its points are not an outline: draw it again"
                )
        rings.append(points)
    return rings


def segmentation_to_rle(segmentation: Outline, size_hw: tuple[int, int]) -> RLE:
    """One RLE of the whole image; polygons are rasterized by pycocotools, as in ``COCO.annToRLE``."""
    if isinstance(segmentation, dict):
        return segmentation
    height, width = size_hw
    return coco_mask.merge(coco_mask.frPyObjects([ring.ravel() for ring in segmentation], height, width))


def rasterize(segmentation: Outline, from_hw: tuple[int, int], to_hw: tuple[int, int]) -> UInt8:
    """The mask of an image of size ``from_hw`` after that image is resized to ``to_hw``: uint8 [H, W] in {0, 1}.

    Polygons are scaled as points and then filled, so no precision is lost; at ``from_hw == to_hw`` the result equals
    ``COCO.annToMask`` bit for bit. An RLE is decoded and resized with nearest-neighbour interpolation by pixel centres,
    which is how ``cv2.INTER_LINEAR`` aligns the image.

    Args:
        segmentation: checked polygons, or a compressed RLE of size ``from_hw``.
    """
    return rasterize_all([segmentation], from_hw, to_hw)[0][0]


def rasterize_all(
    segmentations: Sequence[Outline], from_hw: tuple[int, int], to_hw: tuple[int, int]
) -> tuple[UInt8, npt.NDArray[np.float32], npt.NDArray[np.float32]]:
    """The masks of N outlines, each as :func:`rasterize` returns it, with their boxes and areas.

    Only the bounding box of each outline is decoded, resized and measured.

    Returns:
        uint8 [N, H, W] in {0, 1}, float32 [N, 4] as :func:`masks_to_boxes` returns them, float32 [N] pixels.
    """
    return rasterize_window(segmentations, from_hw, to_hw, (0, 0), to_hw)


def rasterize_window(
    segmentations: Sequence[Outline],
    from_hw: tuple[int, int],
    to_hw: tuple[int, int],
    corner_yx: tuple[int, int],
    window_hw: tuple[int, int],
) -> tuple[UInt8, npt.NDArray[np.float32], npt.NDArray[np.float32]]:
    """As :func:`rasterize_all`, of a window of the resized image; the other pixels are never in memory.

    Args:
        corner_yx, window_hw: top-left corner in the resized image, and size of the window.
    """
    masks = np.zeros((len(segmentations), *window_hw), np.uint8)
    boxes, areas = np.zeros((len(masks), 4), np.float32), np.zeros(len(masks), np.float32)
    is_part = tuple(window_hw) != tuple(to_hw)
    for i, segmentation in enumerate(segmentations):
        crop, top, left = _crop(segmentation, tuple(from_hw), tuple(to_hw))
        top, left = top - corner_yx[0], left - corner_yx[1]
        if is_part and crop.size:
            crop, top, left = _inside(crop, top, left, window_hw)
        height, width = crop.shape
        if crop.size:
            masks[i, top : top + height, left : left + width] = crop
            boxes[i] = left, top, left + width, top + height
            areas[i] = cv2.countNonZero(crop)
    return masks, boxes, areas


def _inside(crop: UInt8, top: int, left: int, window_hw: tuple[int, int]) -> tuple[UInt8, int, int]:
    """The part of the crop inside a window, in its tight bounding box; shape [0, 0] if there is none."""
    y1, x1 = max(-top, 0), max(-left, 0)
    part = crop[y1 : max(window_hw[0] - top, y1), x1 : max(window_hw[1] - left, x1)]
    inner_x1, inner_y1, inner_x2, inner_y2 = masks_to_boxes(part[None])[0].astype(int).tolist()
    tight = np.ascontiguousarray(part[inner_y1:inner_y2, inner_x1:inner_x2])
    return tight, top + y1 + inner_y1, left + x1 + inner_x1


def _crop(segmentation: Outline, from_hw: tuple[int, ...], to_hw: tuple[int, ...]) -> tuple[UInt8, int, int]:
    """The pixels of the resized mask inside their tight bounding box, and the box's top and left."""
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
    # thin parts may vanish at an edge
    inner_x1, inner_y1, inner_x2, inner_y2 = masks_to_boxes(resized[None])[0].astype(int).tolist()
    return np.ascontiguousarray(resized[inner_y1:inner_y2, inner_x1:inner_x2]), y1 + inner_y1, x1 + inner_x1


@lru_cache(maxsize=256)
def _nearest(before: int, after: int) -> npt.NDArray[np.int32]:
    """int32 [after], ascending: for each pixel of a resized row, the index of its source pixel (of ``before``)."""
    ramp = np.arange(before, dtype=np.int32)[None]
    return cv2.resize(ramp, (after, 1), interpolation=cv2.INTER_NEAREST_EXACT)[0]


def segmentation_area(segmentation: Outline, size_hw: tuple[int, int]) -> float:
    """Area in square pixels inside an image of ``size_hw``."""
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
    (``torchvision.ops.masks_to_boxes`` returns width 0).
    """
    masks = np.asarray(masks)
    number, height, width = masks.shape
    boxes = np.zeros((number, 4), np.float32)
    if not boxes.size or not height or not width:
        return boxes
    if masks.dtype != np.bool_ and masks.dtype != np.uint8:
        masks = masks != 0
    row_has_pixels = masks.view(np.uint8).max(axis=2)  # rows are contiguous: ten times faster to search than columns
    for box, mask, has_pixels in zip(boxes, masks.view(np.uint8), row_has_pixels, strict=True):
        rows = np.flatnonzero(has_pixels)
        if len(rows):
            columns = np.flatnonzero(mask[rows[0] : rows[-1] + 1].max(axis=0))
            box[:] = columns[0], rows[0], columns[-1] + 1, rows[-1] + 1
    return boxes


def pack_bits(masks: npt.NDArray[Any]) -> UInt8:
    """[N, H, W], non-zero is the object -> uint8 [ceil(N / 8), H, W]: mask i is bit i % 8 of plane i // 8.

    Transforms that move whole pixels (nearest neighbour) can process eight masks in one plane.
    """
    masks = np.asarray(masks)
    planes = np.zeros((-(-len(masks) // 8), *masks.shape[1:]), np.uint8)
    is_object = np.empty(masks.shape[1:], np.bool_)
    # Shift left and set the next bit, from the last mask to the first: 30 times faster than np.packbits on this axis.
    for i in reversed(range(len(masks))):
        plane = planes[i // 8]
        np.add(plane, plane, out=plane)
        np.not_equal(masks[i], 0, out=is_object)
        np.bitwise_or(plane, is_object.view(np.uint8), out=plane)
    return planes


def unpack_bits(planes: UInt8, n: int) -> UInt8:
    """uint8 [ceil(n / 8), H, W] -> uint8 [n, H, W] in {0, 1}: the inverse of :func:`pack_bits`."""
    assert len(planes) == -(-n // 8), f"{len(planes)} planes cannot contain {n} masks"
    masks = np.empty((n, *planes.shape[1:]), np.uint8)
    for i in range(n):
        np.right_shift(planes[i // 8], np.uint8(i % 8), out=masks[i])
    masks &= 1
    return masks
