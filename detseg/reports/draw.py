"""Draw ground truth or predictions on an image: boxes, masks, class names, scores, keypoints."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from detseg.annotations.table import Record
from detseg.boxes import scale_xyxy, xywh_to_xyxy
from detseg.classes import ClassMap
from detseg.errors import DataError
from detseg.masks import rasterize, rle_to_mask
from detseg.reports.fonts import can_draw, report_missing_glyphs
from detseg.reports.keypoints import draw_keypoints
from detseg.reports.palette import Colour, colour_of, ink_on, instance_colour
from detseg.reports.text import paste_text, text_block, text_size
from detseg.runtime.reporter import Reporter, terminal
from detseg.structures import ClassPrediction, FieldPredictions, Prediction

UInt8 = npt.NDArray[np.uint8]
Content = Prediction | Record | Mapping[str, Any]

MASK_OPACITY = 0.42
MAX_TAG_OVERLAP = 0.08  # a name tag that would overlap another one by more than this share of its area is not drawn


@dataclass(frozen=True)
class _Drawing:
    """Common representation of all kinds of content, in pixels of the image.

    Attributes:
        boxes: float [N, 4] xyxy.
        labels: int [N], 1..K.
        names, details: N class names and what follows them (a score, a kind of annotation).
        mask: function that returns mask i as [H, W], non-zero inside the instance; None if there is none.
        keypoints: float [N, P, 3] or None.
        visibility: whether the third number of a keypoint is its visibility, not a score.
    """

    boxes: npt.NDArray[Any]
    labels: npt.NDArray[Any]
    names: list[str]
    details: list[str]
    mask: Callable[[int], npt.NDArray[Any] | None]
    keypoints: npt.NDArray[Any] | None
    visibility: bool


def draw(
    image: UInt8,
    content: Content,
    class_map: ClassMap,
    *,
    min_score: float = 0.5,
    skeleton: Sequence[tuple[int, int]] = (),
    marks: Mapping[int, str] | None = None,
    instances: Sequence[int] | None = None,
    enlarge: float = 1.0,
    reporter: Reporter | None = None,
) -> UInt8:
    """Draw boxes, translucent masks, class names and keypoints on a copy of ``image``.

    Colours depend only on the label; where there is one class, on the number of the instance. A name is placed where
    it hides least; names without enough free space are not drawn. A name that is wider than the image is written in
    several lines; it is shortened where these would cover more than half of the image. A record without instances but
    with image classes has them written in the corner.

    Args:
        image: uint8 [H, W, 3] RGB, upright.
        content: a Prediction (what a chained classifier says is written after the score); a record of a table (scaled
            to the image if that was resized); or a target or output dict with ``boxes`` xyxy, ``labels`` and optionally
            ``scores``, ``masks``, ``keypoints`` (numpy or tensors).
        min_score: predictions below it are not drawn; ground truth has no scores and is always drawn.
        skeleton: pairs of keypoints to draw lines between, as ``KeypointSchema.skeleton``.
        marks: index of an object that is drawn (of a prediction: of those with ``min_score``) -> a word that is
            written after its name, such as "missed"; its box gets a dashed black and white outline.
        instances: number of each object that is drawn, which gives its hue where there is one class; 0, 1, ... if None.
        enlarge: factor of the letters and lines, for an image that will be shown much smaller.
        reporter: is told once which font to install if no installed font has the characters of the class names; the
            terminal by default. Such a name is drawn as the label and ``\\uXXXX`` for each of these characters.

    Raises:
        DataError: a label without a class name, or a prediction or mask whose size differs from the image.
    """
    height, width = image.shape[:2]
    report_missing_glyphs(class_map.names, reporter or terminal())
    if isinstance(content, Record):
        labels = [] if len(content) else [class_map.label_of(name) for name in content.class_names(class_map)]
        if labels:
            return _with_lines(image, [(_name(class_map, label), "") for label in labels], labels[0])
        drawing = _from_record(content, class_map, (height, width))
    elif isinstance(content, Prediction):
        report_missing_glyphs(
            {item.class_name for classes in content.object_classes or () for item in classes}, reporter or terminal()
        )
        drawing = _from_prediction(content, class_map, min_score)
        _check_size(content.size_hw, (height, width), "prediction")
    else:
        drawing = _from_dict(content, class_map, min_score, (height, width))
    marks = marks or {}
    details = [f"{text} {marks.get(i, '')}".strip() for i, text in enumerate(drawing.details)]
    drawing = replace(drawing, details=details)
    out = image.copy()
    one_class = len(class_map) == 1
    numbers = range(len(drawing.labels)) if instances is None else instances
    colours = [
        instance_colour(number) if one_class else colour_of(int(label))
        for number, label in zip(numbers, drawing.labels, strict=True)
    ]
    line = max(1, round(float(np.sqrt(height * width)) / 450 * enlarge))
    by_size = np.argsort(-np.prod(drawing.boxes[:, 2:] - drawing.boxes[:, :2], axis=1), kind="stable")
    for i in by_size:  # large ones first, so that they do not cover small ones
        mask = drawing.mask(int(i))
        if mask is not None:
            _draw_mask(out, mask, colours[i], line)
    for i in by_size:
        x1, y1, x2, y2 = np.round(drawing.boxes[i]).astype(int).tolist()
        cv2.rectangle(out, (x1, y1), (max(x2 - 1, x1), max(y2 - 1, y1)), colours[i], line)
    for i in marks:
        _draw_dashes(out, drawing.boxes[i], line)
    if drawing.keypoints is not None:
        for i in by_size:
            draw_keypoints(
                out, drawing.keypoints[i], colours[i], line, skeleton=skeleton, ground_truth=drawing.visibility
            )
    _draw_texts(out, drawing, colours, round(text_size(height, width) * enlarge))
    return out


def draw_class(
    image: UInt8,
    prediction: ClassPrediction | FieldPredictions,
    class_map: ClassMap,
    *,
    top: int = 3,
    reporter: Reporter | None = None,
) -> UInt8:
    """Write the ``top`` most probable classes and their probabilities in a corner of a copy of ``image``; with several
    label fields the most probable class of each. ``reporter`` is that of :func:`draw`."""
    report_missing_glyphs(class_map.names, reporter or terminal())
    if isinstance(prediction, FieldPredictions):
        labels = prediction.labels()
        scores = [float(field.probabilities.max()) for field in prediction.fields.values()]
    else:
        order = np.argsort(-prediction.probabilities, kind="stable")[:top]
        labels, scores = (order + 1).tolist(), prediction.probabilities[order].tolist()
    lines = [(_name(class_map, label), f"{score:.2f}") for label, score in zip(labels, scores, strict=True)]
    return _with_lines(image, lines, labels[0])


def draw_prediction(
    image: UInt8,
    prediction: Prediction | ClassPrediction | FieldPredictions,
    class_map: ClassMap,
    *,
    min_score: float,
    skeleton: Sequence[tuple[int, int]] = (),
    reporter: Reporter | None = None,
) -> UInt8:
    """Draw what a model of any task predicts: :func:`draw` for objects, :func:`draw_class` for classes of the image."""
    if isinstance(prediction, Prediction):
        return draw(image, prediction, class_map, min_score=min_score, skeleton=skeleton, reporter=reporter)
    return draw_class(image, prediction, class_map, reporter=reporter)


def _name(class_map: ClassMap, label: int) -> str:
    """The class name; after its label where no font can draw it, because the escaped name is hard to read."""
    name = class_map.name_of(label)
    return name if can_draw(name) else f"{label}: {name}"


def _from_record(record: Record, class_map: ClassMap, size_hw: tuple[int, int]) -> _Drawing:
    def mask(i: int) -> npt.NDArray[Any] | None:
        segmentation = record.segmentations[i]
        return None if segmentation is None else rasterize(segmentation, record.size_hw, size_hw)

    def detail(i: int) -> str:
        flags = {"crowd": record.iscrowd[i], "ignored": record.ignore[i], "difficult": record.difficult[i]}
        return next((f"({name})" for name, flag in flags.items() if flag), "")

    boxes = scale_xyxy(xywh_to_xyxy(record.boxes_xywh), record.size_hw, size_hw).reshape(-1, 4)
    keypoints = None
    if record.keypoints is not None:
        scale = (size_hw[1] / record.size_hw[1], size_hw[0] / record.size_hw[0], 1.0)
        keypoints = record.keypoints * np.array(scale)
    names = [_name(class_map, int(label)) for label in record.labels]
    return _Drawing(boxes, record.labels, names, [detail(i) for i in range(len(record))], mask, keypoints, True)


def _from_prediction(prediction: Prediction, class_map: ClassMap, min_score: float) -> _Drawing:
    shown = prediction.above(min_score)
    names, details = [_name(class_map, int(label)) for label in shown.labels], [f"{x:.2f}" for x in shown.scores]
    if shown.object_classes is not None:
        details = [
            " ".join([text, *map(str, second)]) for text, second in zip(details, shown.object_classes, strict=True)
        ]
    rles = shown.rles
    mask = (lambda i: None) if rles is None else (lambda i: rle_to_mask(rles[i]))
    return _Drawing(shown.boxes.reshape(-1, 4), shown.labels, names, details, mask, shown.keypoints, False)


def _from_dict(target: Mapping[str, Any], class_map: ClassMap, min_score: float, size_hw: tuple[int, int]) -> _Drawing:
    boxes, labels = _array(target["boxes"]).reshape(-1, 4), _array(target["labels"]).reshape(-1)
    scores = _array(target["scores"]) if "scores" in target else None
    keep = np.arange(len(labels)) if scores is None else np.flatnonzero(scores >= min_score)
    names = [_name(class_map, int(label)) for label in labels[keep]]
    details = ["" if scores is None else f"{scores[i]:.2f}" for i in keep.tolist()]
    masks = _array(target["masks"]) if "masks" in target else None
    if masks is not None and len(masks):
        _check_size(masks.shape[-2:], size_hw, "mask")

    def mask(i: int) -> npt.NDArray[Any] | None:
        if masks is None or not len(masks):
            return None
        mask_i = masks[keep[i]].reshape(size_hw)  # torchvision's outputs are [M, 1, H, W] of probabilities
        return np.asarray(mask_i >= 0.5 if np.issubdtype(mask_i.dtype, np.floating) else mask_i != 0)

    keypoints = _array(target["keypoints"])[keep] if "keypoints" in target else None
    return _Drawing(boxes[keep], labels[keep], names, details, mask, keypoints, scores is None)


def _array(value: Any) -> npt.NDArray[Any]:
    """Convert an array, or a tensor on any device, to a numpy array without importing torch."""
    return np.asarray(value.detach().cpu() if hasattr(value, "detach") else value)


def _check_size(content_hw: tuple[int, ...], size_hw: tuple[int, int], kind: str) -> None:
    if tuple(content_hw) != size_hw:
        raise DataError(
            f"a {kind} of {content_hw[1]} x {content_hw[0]} pixels cannot be drawn on an image of "
            f"{size_hw[1]} x {size_hw[0]}; pass the upright image that it belongs to"
        )


def _draw_mask(out: UInt8, mask: npt.NDArray[Any], colour: Colour, line: int) -> None:
    x, y, width, height = cv2.boundingRect((mask != 0).astype(np.uint8))
    if not width:
        return
    cropped = np.pad((mask[y : y + height, x : x + width] != 0).astype(np.uint8), 1)
    window = out[y : y + height, x : x + width]
    inside = cropped[1:-1, 1:-1].astype(bool)
    tinted = window[inside] * (1 - MASK_OPACITY) + np.array(colour) * MASK_OPACITY
    window[inside] = np.round(tinted).astype(np.uint8)
    outlines, _ = cv2.findContours(cropped, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)
    cv2.drawContours(out, outlines, -1, colour, line, offset=(x - 1, y - 1))


def _draw_dashes(out: UInt8, box: npt.NDArray[Any], line: int) -> None:
    """Draw black and white dashes along the edges of a box: they are seen on every colour."""
    x1, y1, x2, y2 = np.round(box).astype(int).tolist()
    x2, y2 = max(x2 - 1, x1), max(y2 - 1, y1)
    width, dash = line + 1, 4 * (line + 1)
    for start, end in (((x1, y1), (x2, y1)), ((x2, y1), (x2, y2)), ((x2, y2), (x1, y2)), ((x1, y2), (x1, y1))):
        cv2.line(out, start, end, (0, 0, 0), width)
        length = max(abs(end[0] - start[0]), abs(end[1] - start[1]), 1)
        for offset in range(0, length, 2 * dash):
            shares = (offset / length, min(offset + dash, length) / length)
            points = [tuple(round(a + share * (b - a)) for a, b in zip(start, end, strict=True)) for share in shares]
            cv2.line(out, points[0], points[1], (255, 255, 255), width)


def _draw_texts(out: UInt8, drawing: _Drawing, colours: Sequence[Colour], size: int) -> None:
    """Write the names in order (best score first), each where it hides least of other names and instances."""
    height, width = out.shape[:2]
    placed = np.zeros((0, 4))
    for i, (name, detail) in enumerate(zip(drawing.names, drawing.details, strict=True)):
        letters = text_block(name, detail, size, max(width - 4, 1), max(height // 2, 1))
        tag_h, tag_w = min(letters.shape[0] + 2, height), min(letters.shape[1] + 4, width)
        candidates = _tag_positions(drawing.boxes[i], (tag_h, tag_w), (height, width))
        overlap = _overlap(candidates, placed).max(axis=1, initial=0) / (tag_h * tag_w)
        hidden = _overlap(candidates, drawing.boxes).sum(axis=1) / (tag_h * tag_w)
        best = int(np.argmin(8 * overlap + hidden + 0.05 * np.arange(len(candidates))))
        if overlap[best] > MAX_TAG_OVERLAP:
            continue
        placed = np.concatenate([placed, candidates[best : best + 1]])
        left, top = candidates[best, :2].astype(int).tolist()
        out[top : top + tag_h, left : left + tag_w] = colours[i]
        paste_text(out, letters[: tag_h - 1, : tag_w - 2], top + 1, left + 2, ink_on(colours[i]))


def _tag_positions(box: npt.NDArray[Any], tag_hw: tuple[int, int], size_hw: tuple[int, int]) -> npt.NDArray[np.float64]:
    """float64 [10, 4] xyxy: above, below, inside at the top and bottom, at the left and right edge; beside the box."""
    x1, y1, x2, y2 = np.round(box).astype(int).tolist()
    tag_h, tag_w = tag_hw
    corners = [(x, y) for y in (y1 - tag_h, y2, y1, y2 - tag_h) for x in (x1, x2 - tag_w)]
    corners += [(x2, y1), (x1 - tag_w, y1)]
    limit = np.array([size_hw[1] - tag_w, size_hw[0] - tag_h])
    top_left = np.clip(np.array(corners, np.float64), 0, limit)
    return np.concatenate([top_left, top_left + np.array([tag_w, tag_h])], axis=1)


def _overlap(boxes: npt.NDArray[Any], others: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
    """Intersection area of every pair: [P, 4] and [N, 4] xyxy -> [P, N]."""
    low = np.maximum(boxes[:, None, :2], others[None, :, :2])
    high = np.minimum(boxes[:, None, 2:], others[None, :, 2:])
    return np.asarray(np.clip(high - low, 0, None).prod(axis=2), np.float64)


def _with_lines(image: UInt8, lines: list[tuple[str, str]], label: int) -> UInt8:
    """Write names and details, each on lines of its own, in the upper left corner of a copy of ``image``, on the colour
    of ``label``."""
    out = image.copy()
    height, width = out.shape[:2]
    size = text_size(height, width)
    max_width, max_height = max(width - 6, 1), max(height // len(lines), 1)
    letters = [text_block(name, detail, size, max_width, max_height) for name, detail in lines]
    tag_h, tag_w = sum(mask.shape[0] for mask in letters) + 2, max(mask.shape[1] for mask in letters) + 6
    out[:tag_h, :tag_w] = colour_of(label)
    top = 1
    for mask in letters:
        paste_text(out, mask, top, 3, ink_on(colour_of(label)))
        top += mask.shape[0]
    return out
