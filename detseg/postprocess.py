"""Convert network outputs to predictions in original pixels; paste and encode masks inside their boxes."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
from pycocotools import mask as coco_mask

from detseg.boxes import clip_xyxy, xywh_to_xyxy, xyxy_to_xywh
from detseg.errors import DataError
from detseg.orientation import unorient_boxes, unorient_points, unorient_rle
from detseg.preprocess import Geometry
from detseg.structures import RLE, Float32, Prediction, RawPrediction


def finish(raw: RawPrediction, geometry: Geometry) -> Prediction:
    """Convert a network's output for one image to pixels of the upright original, highest score first.

    Boxes are shifted by the offset of the crop, scaled by original / resized (per axis, in float32 as torchvision's
    ``resize_boxes``) and clipped to the image. M = 0 keeps all shapes.

    Raises:
        DataError: a box, score, mask or keypoint is NaN or infinite.
    """
    check_finite(raw)
    order = np.argsort(-raw.scores, kind="stable")
    factor = np.array(geometry.original_hw[::-1], np.float32) / np.array(geometry.resized_hw[::-1], np.float32)
    corner = np.array(geometry.crop_yx[::-1], np.float32)
    scaled: Float32 = ((raw.boxes[order].reshape(-1, 2, 2) + corner) * factor).astype(np.float32).reshape(-1, 4)
    boxes: Float32 = clip_xyxy(scaled, geometry.original_hw).astype(np.float32)
    keypoints = None
    if raw.keypoints is not None:
        keypoints = raw.keypoints[order].astype(np.float32)
        keypoints[..., :2] = (keypoints[..., :2] + corner) * factor
    return Prediction(
        geometry.original_hw,
        boxes,
        raw.labels[order].astype(np.int64),
        raw.scores[order].astype(np.float32),
        None
        if raw.mask_probs is None
        else paste_masks(raw.mask_probs[order], boxes, geometry.original_hw, tuple(factor.tolist())),
        keypoints,
    )


def check_finite(prediction: RawPrediction | Prediction, where: str = "prediction") -> None:
    """DataError if a box, score, mask probability or keypoint is NaN or infinite: metrics would not detect it."""
    for name in ("boxes", "scores", "mask_probs", "keypoints"):
        values = getattr(prediction, name, None)
        if values is not None and not np.isfinite(values).all():
            rows = np.argwhere(~np.isfinite(values))
            raise DataError(
                f"{where}: {name}[{', '.join(str(i) for i in rows[0])}] is {values[tuple(rows[0])]}; the network "
                "outputs non-finite numbers: train with a lower learning rate or go back to an earlier checkpoint"
            )


def paste_masks(
    mask_probs: Float32, boxes: Float32, size_hw: tuple[int, int], scale_xy: tuple[float, float] = (1, 1)
) -> list[RLE]:
    """Paste the small masks of boxes into masks of the whole image.

    The inverse of the mask head's training targets, accurate to a fraction of a pixel: the targets are averages over
    the bins of a RoIAlign whose coordinate c is the centre of pixel c (``aligned=False``), so the centre of bin i of S
    is at x1 + (i + 0.5) (x2 - x1) / S. Each pixel is interpolated linearly between the bins around it, the outermost of
    which extend to the edge of the box, and is 1 above 0.5. (torchvision's ``paste_masks_in_image`` truncates the
    corners of the box to whole pixels and so shifts and widens masks by half a pixel.) Only the pixels of the box are
    computed.

    Args:
        mask_probs: float32 [M, S, S] in [0, 1].
        boxes: float32 [M, 4] xyxy in pixels of the image.
        size_hw: height and width of the image.
        scale_xy: image pixels per pixel of the network's input, in x and y.

    Returns:
        M COCO RLEs of ``size_hw``.
    """
    side = mask_probs.shape[-1]
    height, width = size_hw
    rles = []
    for probs, (x1, y1, x2, y2) in zip(mask_probs, boxes.astype(np.float64).tolist(), strict=True):
        left, columns = _interpolation_weights(x1, x2, scale_xy[0], side, width)
        top, rows = _interpolation_weights(y1, y2, scale_xy[1], side, height)
        # Transposed: run lengths follow the columns, so each column of the image is contiguous in memory.
        rles.append(crop_rle((columns @ probs.T @ rows.T > 0.5).T, top, left, size_hw))
    return rles


def _interpolation_weights(start: float, end: float, scale: float, bins: int, size: int) -> tuple[int, Float32]:
    """Along one axis: the first pixel of a box's window, and the weight of each bin for each pixel [window, bins].

    Args:
        start, end: sides of the box in image pixels.
        scale: image pixels per pixel of the network's input, where a box is at least one pixel long.
        bins: number of bins of the mask along this axis.
        size: length of the image.
    """
    first = max(math.floor(start) - 1, 0)
    centres = np.arange(first, min(math.ceil(end + scale) + 1, size)) + 0.5
    position = (centres - 0.5 * scale - start) * (bins / max(end - start, scale))
    inside = (position > 0) & (position < bins)
    bin_index = (position - 0.5).clip(0, bins - 1)
    weights = np.maximum(0, 1 - np.abs(bin_index[:, None] - np.arange(bins))) * inside[:, None]
    return first, weights.astype(np.float32)


def crop_rle(crop: npt.NDArray[np.bool_], top: int, left: int, size_hw: tuple[int, int]) -> RLE:
    """The RLE of a mask that is zero except for ``crop`` [h, w] at row ``top``, column ``left``.

    The same bytes as ``pycocotools.mask.encode`` of the whole mask, which is never built. ``crop`` must be inside the
    image; it is fastest with its columns contiguous (``array.T`` of a C-ordered [w, h] array).
    """
    height, width = size_hw
    rows, columns = crop.shape
    # A zero before every column separates the columns, so each change of value is the start or the end of a run.
    separated = np.zeros(columns * (rows + 1) + 1, np.bool_)
    separated[:-1].reshape(columns, rows + 1)[:, 1:] = crop.T
    column, row = np.divmod(np.flatnonzero(separated[1:] != separated[:-1]), rows + 1)
    bounds = (left + column) * height + top + row  # start, end, start, end, ... in column order of the whole image
    # A run that ends at the bottom edge and one that starts at the top of the next column are one run.
    joined = np.flatnonzero(bounds[1:-1:2] == bounds[2::2])
    bounds = np.delete(bounds, np.concatenate([2 * joined + 1, 2 * joined + 2]))
    counts = np.diff(bounds, prepend=0, append=height * width)
    if len(counts) > 1 and counts[-1] == 0:
        counts = counts[:-1]
    rle: RLE = coco_mask.frPyObjects({"size": [height, width], "counts": counts}, height, width)
    return rle


def mask_to_box_rle(mask: npt.NDArray[np.bool_]) -> RLE:
    """The RLE of a whole mask [H, W]; only the rows and columns of its bounding box are encoded."""
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    if not len(rows):
        return crop_rle(mask[:0, :0], 0, 0, mask.shape)
    top, left = int(rows[0]), int(columns[0])
    return crop_rle(mask[top : rows[-1] + 1, left : columns[-1] + 1], top, left, mask.shape)


def to_stored_frame(prediction: Prediction, stored_hw: tuple[int, int], orientation: int) -> Prediction:
    """Convert a prediction to the pixels as stored, before the EXIF ``orientation`` (1..8) was applied.

    For data sets whose annotations refer to stored pixels.
    """
    if orientation == 1:
        return prediction
    xywh = xyxy_to_xywh(prediction.boxes).astype(np.float64)
    keypoints = prediction.keypoints
    if keypoints is not None:
        keypoints = keypoints.copy()
        keypoints[..., :2] = unorient_points(keypoints[..., :2].astype(np.float64), stored_hw, orientation)
    rles = prediction.rles
    return Prediction(
        stored_hw,
        xywh_to_xyxy(unorient_boxes(xywh, stored_hw, orientation)).astype(np.float32),
        prediction.labels,
        prediction.scores,
        None if rles is None else [unorient_rle(rle, orientation) for rle in rles],
        keypoints,
        prediction.object_classes,
    )
