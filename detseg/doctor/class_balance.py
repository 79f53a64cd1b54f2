"""Find classes that are far rarer than others, and images without labels among labelled ones."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from detseg.annotations.from_options import class_counts
from detseg.annotations.groups import file_name
from detseg.annotations.instance_box import MIN_SIDE
from detseg.annotations.table import AnnotationTable
from detseg.doctor.findings import Finding

RATIO = 200
"""A class is far rarer than another from this ratio on: a network that never says it loses next to nothing."""

MANY = 0.25
"""Share of images without objects, or without keypoints, from which they are probably not annotated: deliberate
negatives are usually fewer. With keypoints it is the reverse: below it they were probably forgotten."""

SEVERAL = 3
"""Images without objects that are reported at least: one of two says nothing about the others."""

Coverage = dict[str, list[str]]
"""Kind of image -> names of the images."""


def inspect_balance(table: AnnotationTable) -> list[Finding]:
    """Find classes with far fewer instances (or images) than the commonest one, and unlabelled images."""
    return [*_rare_classes(table), *_unlabelled(table), *_without_keypoints(table)]


def _rare_classes(table: AnnotationTable) -> list[Finding]:
    counts = class_counts(table)
    if not counts:
        return []
    noun = "images" if table.has_class_index else "instances"
    commonest = max(counts, key=lambda name: counts[name])
    return [
        Finding(
            "warning",
            "rare class",
            table.source,
            f"class {name!r} has {count} {noun}, {commonest!r} has {counts[commonest] / count:.0f} times as many",
            "annotate more of it, or select the other classes (--classes)",
            names=(name,),
        )
        for name, count in counts.items()
        if count and counts[commonest] >= RATIO * count
    ]


def _unlabelled(table: AnnotationTable) -> list[Finding]:
    if table.has_class_index:
        without = np.flatnonzero((table.class_index < 0).all(axis=1))
        value, remedy = "no class, while other images have one", "label it, or remove it"
    elif table.has_boxes:
        without = np.flatnonzero(table.instances_per_image() == 0)
        share = len(without) / len(table)
        if share <= MANY or len(without) < SEVERAL:
            return []
        value = f"no objects, as {len(without)} of {len(table)} images ({share:.0%})"
        remedy = "annotate it, unless there is really nothing on it: it is learned as background"
    else:
        return []
    return [
        Finding("warning", "unlabelled image", file_name(table, image), value, remedy, image=image)
        for image in without.tolist()
    ]


def _without_keypoints(table: AnnotationTable) -> list[Finding]:
    """Images whose objects have a box but no keypoints, among others with keypoints."""
    if not table.has_keypoints:
        return []
    coverage = _coverage_columns(table)
    without = np.flatnonzero(coverage[:, 0] & ~coverage[:, 1])
    share = len(without) / max(int(coverage.any(axis=1).sum()), 1)
    if share > MANY:
        return []
    return [
        Finding(
            "warning",
            "image without keypoints",
            file_name(table, image),
            f"its objects have boxes, but no keypoints, as in {len(without)} of {len(table)} images",
            "annotate the keypoints, or ignore it if they are really not visible",
            image=image,
        )
        for image in without.tolist()
    ]


def coverage(table: AnnotationTable) -> Coverage:
    """The names of the images with boxes and keypoints, with boxes only, with keypoints only, and with neither.

    Empty for data without keypoints. A box that a reader made from the keypoints of an object does not count.
    """
    if table.keypoints is None:
        return {}
    boxes, keypoints = _coverage_columns(table).T
    kinds = {
        "boxes and keypoints": boxes & keypoints,
        "boxes only": boxes & ~keypoints,
        "keypoints only": ~boxes & keypoints,
        "neither": ~boxes & ~keypoints,
    }
    return {
        kind: [file_name(table, row) for row in np.flatnonzero(of_kind).tolist()] for kind, of_kind in kinds.items()
    }


def _coverage_columns(table: AnnotationTable) -> npt.NDArray[np.bool_]:
    """bool [I, 2]: whether any object of an image has a box that was annotated, and any a labelled keypoint."""
    rows = table.instance_rows()
    images = np.repeat(np.arange(len(table)), table.instances_per_image())
    assert table.keypoints is not None
    points = table.keypoints[rows]
    labelled = points[..., 2] > 0
    has_points = np.asarray(labelled.any(axis=1), np.bool_)
    low = np.where(labelled[..., None], points[..., :2], np.inf).min(axis=1, initial=np.inf)
    high = np.where(labelled[..., None], points[..., :2], -np.inf).max(axis=1, initial=-np.inf)
    sides = np.maximum(np.where(has_points[:, None], high - low, 0), MIN_SIDE)
    is_annotated = np.asarray((np.abs(table.boxes_xywh[rows, 2:] - sides) >= 1e-6).any(axis=1), np.bool_)
    result = np.zeros((len(table), 2), np.bool_)
    result[images[is_annotated | np.logical_not(has_points)], 0] = True
    result[images[has_points], 1] = True
    return result
