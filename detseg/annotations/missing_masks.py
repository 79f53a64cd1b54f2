"""Complete or drop the instances that have only a box where others have a mask, so that masks can be trained on."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import numpy.typing as npt

from detseg.annotations.groups import file_name
from detseg.annotations.lost_objects import LostObjects
from detseg.annotations.repair_log import RepairLog
from detseg.annotations.segmentation import SegmentationColumn, starts
from detseg.annotations.table import INSTANCE_COLUMNS, AnnotationTable
from detseg.errors import DataError

CHOICES = ("box", "drop", "keep")


def with_complete_masks(table: AnnotationTable, choice: str | None) -> AnnotationTable:
    """``table`` with a mask for all training instances or for none, if ``choice`` is not "keep"; noted.

    A table without any mask, or with all of them, is returned unchanged; crowds and ignored instances need no mask.

    Args:
        table: as read, not a subset.
        choice: "box": the box of an instance without a mask is its mask; "drop": it is left out, and so are images
            that lose all their instances; "keep": it stays without a mask, so that only boxes can be trained; None:
            "box" if at least half of the training instances have a mask and there are no keypoints, else "keep".

    Raises:
        DataError: an unknown ``choice``, or no image is left.
    """
    if choice not in (*CHOICES, None):
        raise DataError(f"without_mask is {choice!r}; choose box, drop or keep")
    trained = table.trained_rows()
    missing = trained[~table.segmentation.present()[trained]]
    if not 0 < len(missing) < len(trained):
        return table
    if choice is None:
        choice = "box" if 2 * len(missing) <= len(trained) and not table.has_keypoints else "keep"
    if choice == "keep":
        return table
    where = _names(table, missing)
    return _with_box_masks(table, missing, where) if choice == "box" else _without(table, missing, where)


def _with_box_masks(table: AnnotationTable, rows: npt.NDArray[np.int64], where: list[str]) -> AnnotationTable:
    boxes = table.boxes_xywh[rows]
    low, high = boxes[:, :2], boxes[:, :2] + boxes[:, 2:]
    corners = np.stack([low, np.stack([high[:, 0], low[:, 1]], 1), high, np.stack([low[:, 0], high[:, 1]], 1)], axis=1)
    column = SegmentationColumn.concatenate([table.segmentation, SegmentationColumn.from_list([[c] for c in corners])])
    order = np.arange(len(table.label))
    order[rows] = len(table.label) + np.arange(len(rows))
    reason = (
        "box used as the mask of an instance without one, as most have one "
        "(--without-mask drop leaves such instances out, keep trains on boxes)"
    )
    return replace(table, segmentation=column.take(order), notes=_noted(table, reason, where))


def _without(table: AnnotationTable, rows: npt.NDArray[np.int64], where: list[str]) -> AnnotationTable:
    kept_rows = np.ones(len(table.label), np.bool_)
    kept_rows[rows] = False
    before = starts(kept_rows.astype(np.int64))  # of each row, the number of kept rows before it
    start, stop = before[table.start], before[table.stop]
    removed = (table.stop - table.start) - (stop - start)
    emptied = (removed > 0) & (start == stop)
    left_out = tuple(file_name(table, row) for row in np.flatnonzero(emptied).tolist())
    own = LostObjects(len(rows), 0, int((removed > 0).sum()), left_out)
    total = table.lost.total or len(table.instance_rows())
    lost = replace(LostObjects.sum_of([table.lost, own]), total=total)
    if emptied.all():
        raise DataError(f"{table.source}: {lost.line()}; pass --without-mask box or keep")
    kept = np.flatnonzero(kept_rows)
    columns = {name: getattr(table, name)[kept] for name in INSTANCE_COLUMNS}
    result = replace(
        table,
        **columns,
        start=start,
        stop=stop,
        segmentation=table.segmentation.take(kept),
        keypoints=None if table.keypoints is None else table.keypoints[kept],
        notes=_noted(table, "instance without a mask left out (--without-mask drop)", where),
        lost=lost,
    )
    images = np.flatnonzero(~emptied)
    return replace(result.subset(images), record=np.arange(len(images), dtype=np.int64))


def _names(table: AnnotationTable, rows: npt.NDArray[np.int64]) -> list[str]:
    """The image and, where it is known, the id of each instance."""
    order = np.argsort(table.start, kind="stable")
    images = order[np.searchsorted(table.start[order], rows, side="right") - 1]
    numbers = table.annotation_id[rows].tolist()
    return [
        file_name(table, image) + (f", annotation {number}" if number >= 0 else "")
        for image, number in zip(images.tolist(), numbers, strict=True)
    ]


def _noted(table: AnnotationTable, kind: str, where: list[str]) -> RepairLog:
    notes = RepairLog()
    notes.merge(table.notes)
    for name in where:
        notes.add(kind, name)
    return notes
