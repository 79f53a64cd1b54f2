"""From what a network gives to what a user gets: original pixels, masks pasted and encoded inside their boxes."""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt
from pycocotools import mask as coco_mask

from detseg.boxes import clip_xyxy, xywh_to_xyxy, xyxy_to_xywh
from detseg.errors import DataError
from detseg.orientation import unorient_boxes, unorient_points, unorient_rle
from detseg.preprocess import Geometry
from detseg.structures import RLE, Float32, Prediction, RawPrediction


def finish(raw: RawPrediction, geometry: Geometry) -> Prediction:
    """A network's output for one image in the pixels of the upright original, best score first.

    Boxes are scaled by original / resized (per axis, in float32 as torchvision's ``resize_boxes``) after the offset of
    the crop is added, and cut at the frame. M = 0 keeps all shapes.

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
        None if raw.mask_probs is None else paste_masks(raw.mask_probs[order], boxes, geometry.original_hw),
        keypoints,
    )


def check_finite(prediction: RawPrediction | Prediction, where: str = "prediction") -> None:
    """DataError if a box, score, mask probability or keypoint is NaN or infinite: the metric would not notice."""
    for name in ("boxes", "scores", "mask_probs", "keypoints"):
        values = getattr(prediction, name, None)
        if values is not None and not np.isfinite(values).all():
            rows = np.argwhere(~np.isfinite(values))
            raise DataError(
                f"{where}: {name}[{', '.join(str(i) for i in rows[0])}] is {values[tuple(rows[0])]}; the network gives "
                "numbers that are not finite: train with a lower learning rate or go back to an earlier checkpoint"
            )


def paste_masks(mask_probs: Float32, boxes: Float32, size_hw: tuple[int, int]) -> list[RLE]:
    """Masks of the whole image from the small masks inside their boxes.

    The formula is torchvision's ``paste_masks_in_image``: the mask gets a border of one zero pixel, the box grows by
    the same share, its corners are cut to whole pixels, the mask is resized bilinearly and is 1 above 0.5. Only the
    pixels of the box are ever computed.

    Args:
        mask_probs: float32 [M, S, S] in [0, 1].
        boxes: float32 [M, 4] xyxy in pixels of the image.
        size_hw: height and width of the image.

    Returns:
        M COCO RLEs of ``size_hw``.
    """
    if not len(boxes):
        return []
    side = mask_probs.shape[-1]
    corners = _expand(np.asarray(boxes, np.float32), (side + 2) / side).astype(np.int64)
    height, width = size_hw
    rles = []
    # Transposed: run lengths go down the columns, so each column of the picture is kept as one piece of memory.
    padded = np.pad(np.asarray(mask_probs, np.float32).transpose(0, 2, 1), ((0, 0), (1, 1), (1, 1)))
    for columns, (x1, y1, x2, y2) in zip(padded, corners.tolist(), strict=True):
        resized = cv2.resize(columns, (max(y2 - y1 + 1, 1), max(x2 - x1 + 1, 1)), interpolation=cv2.INTER_LINEAR)
        left, right, top, bottom = max(x1, 0), min(x2 + 1, width), max(y1, 0), min(y2 + 1, height)
        inside = resized[left - x1 : max(right, left) - x1, top - y1 : max(bottom, top) - y1] > 0.5
        rles.append(crop_rle(inside.T, top, left, size_hw))
    return rles


def crop_rle(crop: npt.NDArray[np.bool_], top: int, left: int, size_hw: tuple[int, int]) -> RLE:
    """The RLE of an image that is zero but for ``crop`` [h, w] at row ``top``, column ``left``.

    The same bytes as ``pycocotools.mask.encode`` of the whole image, which is never made. ``crop`` must lie inside the
    image; it is fastest with its columns contiguous (``array.T`` of a C-ordered [w, h] array).
    """
    height, width = size_hw
    rows, columns = crop.shape
    # One zero before every column separates the columns; then each change of value is the start or the end of a run.
    apart = np.zeros(columns * (rows + 1) + 1, np.bool_)
    apart[:-1].reshape(columns, rows + 1)[:, 1:] = crop.T
    column, row = np.divmod(np.flatnonzero(apart[1:] != apart[:-1]), rows + 1)
    bounds = (left + column) * height + top + row  # start, end, start, end, ... down the columns of the whole image
    # A run that ends at the bottom edge and one that starts at the top of the next column are one run.
    joined = np.flatnonzero(bounds[1:-1:2] == bounds[2::2])
    bounds = np.delete(bounds, np.concatenate([2 * joined + 1, 2 * joined + 2]))
    counts = np.diff(bounds, prepend=0, append=height * width)
    if len(counts) > 1 and counts[-1] == 0:
        counts = counts[:-1]
    rle: RLE = coco_mask.frPyObjects({"size": [height, width], "counts": counts}, height, width)
    return rle


def mask_to_box_rle(mask: npt.NDArray[np.bool_]) -> RLE:
    """The RLE of a whole mask [H, W]; only the rows and columns that it touches are encoded."""
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    if not len(rows):
        return crop_rle(mask[:0, :0], 0, 0, mask.shape)
    top, left = int(rows[0]), int(columns[0])
    return crop_rle(mask[top : rows[-1] + 1, left : columns[-1] + 1], top, left, mask.shape)


def to_stored_frame(prediction: Prediction, stored_hw: tuple[int, int], orientation: int) -> Prediction:
    """The prediction in the frame of the pixels as stored, before the EXIF ``orientation`` (1..8) was applied.

    Data sets whose annotations refer to stored pixels get their predictions back in that frame.
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
    )


def _expand(boxes: Float32, scale: float) -> Float32:
    """[M, 4] xyxy boxes grown around their centre, in float32 and in the order of torchvision's ``expand_boxes``."""
    half = (boxes[:, 2:] - boxes[:, :2]) * np.float32(0.5) * np.float32(scale)
    centre = (boxes[:, 2:] + boxes[:, :2]) * np.float32(0.5)
    return np.concatenate([centre - half, centre + half], axis=1)
