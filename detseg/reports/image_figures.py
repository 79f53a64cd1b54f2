"""Figures of images: samples of a data set as the network sees them, predictions, mistakes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from detseg.annotations.table import Record
from detseg.classes import ClassMap, LabelField
from detseg.reports.comparison import AnyPrediction, Compared, compare, matches_of, wrong_classes
from detseg.reports.draw import draw
from detseg.reports.figure import ENLARGE, fitted, image_grid
from detseg.reports.resize import resized_prediction, resized_target
from detseg.runtime.reporter import silent
from detseg.short_text import counted
from detseg.structures import Prediction

if TYPE_CHECKING:
    from matplotlib.figure import Figure

UInt8 = npt.NDArray[np.uint8]

PADDING = np.array((225, 225, 225), np.uint8)
"""Colour of the pixels that fill a batch up to its largest image."""


def samples_figure(
    samples: Iterable[tuple[Any, Mapping[str, Any]]],
    class_map: ClassMap,
    *,
    label_fields: Sequence[LabelField] = (),
    skeleton: Sequence[tuple[int, int]] = (),
    is_batch: bool = False,
    title: str = "images as the network gets them",
) -> Figure:
    """Draw samples with their boxes, masks, keypoints and class names.

    Args:
        samples: (image, target) as a dataset returns them: image uint8, or float in [0, 1], [3, H, W].
        class_map: names of the labels, or of ``class_index``.
        label_fields: fields of a ``class_index`` [T].
        skeleton: pairs of keypoints to draw lines between.
        is_batch: fill every image up to the largest, in grey, as a network does with a batch.
    """
    images, captions = [], []
    for image, target in samples:
        pixels = _pixels(image)
        size_hw = pixels.shape[:2]
        size = f"{size_hw[1]} x {size_hw[0]} pixels"
        shown = fitted(pixels)
        if "boxes" in target:
            shown_hw = (shown.shape[0], shown.shape[1])
            content = resized_target(target, size_hw, shown_hw)
            shown = draw(shown, content, class_map, skeleton=skeleton, enlarge=ENLARGE, reporter=silent())
            captions.append(f"{counted(len(content['labels']), 'object')}, {size}")
        else:
            captions.append(f"{_class_text(target['class_index'], class_map, label_fields)}, {size}")
        images.append((shown, size_hw))
    if is_batch and images:
        return image_grid(_filled(images), captions, f"{title} (grey: padding)")
    return image_grid([shown for shown, _ in images], captions, title)


def predictions_figure(
    compared: Sequence[Compared],
    title: str = "ground truth (left) and prediction (right); dashed: missed, or false alarm",
) -> Figure:
    """Show images with their predictions; those with a mistake have a frame. A detector's are pairs in a row."""
    if not any(len(item.images) == 2 for item in compared):
        title = "images with predicted classes" if title.startswith("ground truth") else title
    images = [image for item in compared for image in item.images]
    captions = [caption for item in compared for caption in item.captions]
    framed = [item.is_wrong for item in compared for _ in item.images]
    return image_grid(images, captions, title, framed=framed)


def compared_images(
    images: Iterable[UInt8],
    records: Iterable[Record],
    predictions: Iterable[AnyPrediction],
    class_map: ClassMap,
    *,
    min_score: float = 0.5,
    skeleton: Sequence[tuple[int, int]] = (),
) -> list[Compared]:
    """Resize images for a grid, and draw ground truth and prediction on them; arguments as in :func:`compare`."""
    result = []
    for image, record, prediction in zip(images, records, predictions, strict=True):
        shown = fitted(image)
        if isinstance(prediction, Prediction):
            prediction = resized_prediction(prediction.above(min_score), (shown.shape[0], shown.shape[1]))
        options: dict[str, Any] = {"min_score": min_score, "skeleton": skeleton, "enlarge": ENLARGE}
        result.append(compare(shown, record, prediction, class_map, **options, reporter=silent()))
    return result


def worst_first(
    records: Iterable[Record], predictions: Mapping[int, AnyPrediction], class_map: ClassMap, min_score: float = 0.5
) -> list[tuple[int, int]]:
    """Return (position, number of mistakes) of the images with mistakes, the worst first.

    Of a detector those with the most misses and false alarms; of a classifier the wrong ones, by descending score.

    Args:
        predictions: image id -> prediction; images without one are left out.
    """
    ranked = []
    for position, record in enumerate(records):
        prediction = predictions.get(record.image_id)
        if isinstance(prediction, Prediction):
            mistakes = matches_of(record, prediction, len(class_map), min_score).mistakes
            ranked.append((float(mistakes), position, mistakes))
        elif prediction is not None:
            wrong = wrong_classes(record, prediction, class_map)
            ranked.append((max((score for _, _, score in wrong), default=0.0), position, len(wrong)))
    ranked.sort(key=lambda item: (-item[0], item[1]))
    return [(position, mistakes) for _, position, mistakes in ranked if mistakes]


def _pixels(image: Any) -> UInt8:
    pixels = np.asarray(image.detach().cpu() if hasattr(image, "detach") else image)
    if np.issubdtype(pixels.dtype, np.floating):
        pixels = np.round(np.clip(pixels, 0, 1) * 255)
    return np.ascontiguousarray(np.moveaxis(pixels, 0, -1)).astype(np.uint8)


def _class_text(class_index: Any, class_map: ClassMap, fields: Sequence[LabelField]) -> str:
    indices = np.asarray(class_index).reshape(-1).tolist()
    if not fields:
        return class_map.name_of(indices[0] + 1)
    names = [
        f"{field.name}={field.class_map.name_of(index + 1)}"
        for field, index in zip(fields, indices, strict=True)
        if index >= 0
    ]
    return ", ".join(names) or "no class"


def _filled(images: Sequence[tuple[UInt8, tuple[int, ...]]]) -> list[UInt8]:
    """Return the images at one scale, each filled up at the bottom and on the right to the largest sides."""
    height, width = (max(size_hw[axis] for _, size_hw in images) for axis in (0, 1))
    result = []
    for shown, size_hw in images:
        scale = shown.shape[0] / size_hw[0]
        canvas = np.empty((max(round(height * scale), 1), max(round(width * scale), 1), 3), np.uint8)
        canvas[:] = PADDING
        canvas[: shown.shape[0], : shown.shape[1]] = shown[: canvas.shape[0], : canvas.shape[1]]
        result.append(fitted(canvas))
    return result
