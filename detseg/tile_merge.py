"""Merge the predictions of the tiles of an image: no object twice, and one detection of an object that borders cut.

Two tiles see the same pixels in what both show. So two detections of different tiles are the same object if they have
the same class and agree there: their boxes, and their masks if there are any, each reduced to the common window, have
an IoU of at least ``AGREEMENT``. Neighbouring objects that touch do not agree, on whichever side of a border they are.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
from pycocotools import mask as coco_mask

from detseg.errors import DataError
from detseg.preprocess import Geometry
from detseg.structures import RLE, Prediction

AGREEMENT = 0.5
"""IoU from which two detections are the same object, as in the networks' own suppression."""

COMPLETE = 0.8
"""IoU of boxes from which the parts of an object that tiles show are all of it: they are finer than the whole image."""

MARGIN = 4.0
"""Pixels of the network's input: a box that ends nearer to the border of its tile is cut by it. A box is less exact."""

LEFT, TOP, RIGHT, BOTTOM = range(4)


def merge_views(views: Sequence[Geometry], predictions: Sequence[Prediction]) -> Prediction:
    """Merge the predictions of the views of one image.

    1. A detection that ends at a border inside the image is cut. It is dropped if another tile shows all of it, and
       does not cut it: that tile decides. A detection in the view of the whole image is dropped if a tile shows all of
       it.
    2. Beginning with the highest score, a detection is joined by those of other tiles that agree with it, at most one
       from each tile, and by those that agree with the cut ones that joined it.
    3. The result is the detection of the highest score that a tile shows whole, else the union of those that are cut:
       the box around their boxes, the union of their masks, and each keypoint where its score is highest; but the
       detection in the whole image if there is one, and the union is not ``COMPLETE``. The score is the highest.
    4. Of two results that no view shows together, the lower one is dropped if their IoU is above ``AGREEMENT``.

    Args:
        views: those of :meth:`~detseg.preprocess.Preprocessing.views`.
        predictions: the prediction of each view, in pixels of the original image.

    Returns:
        The prediction of the image, highest score first. M = 0 keeps all shapes.
    """
    if len(views) != len(predictions):
        raise DataError(f"{len(views)} views of an image but {len(predictions)} predictions; pass one for each")
    if len(views) == 1:
        return predictions[0]
    detections = _Detections(views, predictions)
    groups = detections.grouped()
    return detections.merged(groups)


@dataclass
class _Group:
    """Detections of one object, at most one from each view."""

    members: list[int]
    seen_by: set[int] = field(default_factory=set)


class _Detections:
    """All detections of the views of an image.

    Attributes:
        boxes: float64 [D, 4] xyxy; ``view`` int64 [D]; ``is_cut`` bool [D, 4], at the sides of ``LEFT`` ...
        windows: float64 [V, 4] xyxy.
    """

    def __init__(self, views: Sequence[Geometry], predictions: Sequence[Prediction]) -> None:
        self.size_hw = views[0].original_hw
        self.boxes = np.concatenate([part.boxes for part in predictions]).astype(np.float64).reshape(-1, 4)
        self.labels = np.concatenate([part.labels for part in predictions])
        self.scores = np.concatenate([part.scores for part in predictions])
        self.view = np.repeat(np.arange(len(views)), [len(part) for part in predictions])
        has_masks = all(part.rles is not None for part in predictions)
        self.rles: list[RLE] | None = [rle for part in predictions for rle in part.rles or ()] if has_masks else None
        points = [part.keypoints for part in predictions if part.keypoints is not None]
        self.keypoints = np.concatenate(points) if len(points) == len(predictions) else None

        height, width = self.size_hw
        self.windows = np.array([view.window for view in views], np.float64)
        self._rectangles: dict[tuple[int, int], RLE] = {}
        margins = np.array([[MARGIN * a / b for a, b in zip(v.original_hw, v.resized_hw, strict=True)] for v in views])
        self._margin = np.tile(margins[:, ::-1], 2)  # x, y, x, y, in pixels of the original
        edges = np.array([0, 0, width, height])
        self._inner = np.abs(self.windows - edges) > 0.5  # borders of tiles inside the image
        self._is_whole_image = ~self._inner.any(axis=1)
        distance = np.abs(self.boxes - self.windows[self.view])
        self.is_cut = self._inner[self.view] & (distance <= self._margin[self.view])
        self._grown = self.boxes + np.array([-1, -1, 1, 1]) * 2 * self._margin[self.view]  # what is beyond the cut
        self._grown = np.clip(self._grown, 0, np.array([width, height] * 2))

    def grouped(self) -> list[_Group]:
        """The detections that are kept, in groups of one object each; highest score first."""
        kept = ~self._is_better_seen()
        order = np.argsort(-self.scores, kind="stable")
        free = kept.copy()
        candidates: dict[tuple[int, int], npt.NDArray[np.int64]] = {}
        for view in range(len(self.windows)):
            rows = order[kept[order] & (self.view[order] == view)]
            for label in np.unique(self.labels[rows]).tolist():
                candidates[view, label] = rows[self.labels[rows] == label]
        neighbours = [np.flatnonzero(self._overlaps(view)).tolist() for view in range(len(self.windows))]
        groups = []
        for seed in order[kept[order]].tolist():
            if not free[seed]:
                continue
            group = _Group([seed], {int(self.view[seed])})
            free[seed] = False
            waiting = [seed]
            while waiting:
                member = waiting.pop(0)
                for view in neighbours[self.view[member]]:
                    rows = candidates.get((view, int(self.labels[member])))
                    if view in group.seen_by or rows is None:
                        continue
                    joined = self._first_that_agrees(member, rows[free[rows]])
                    if joined is None:
                        continue
                    free[joined] = False
                    group.seen_by.add(view)
                    group.members.append(joined)
                    if self.is_cut[joined].any():
                        waiting.append(joined)
            groups.append(group)
        return groups

    def merged(self, groups: Sequence[_Group]) -> Prediction:
        """One detection for each group that is not suppressed by a better one."""
        boxes, scores, rles, keypoints = [], [], [], []
        for group in groups:
            members = np.array(group.members)
            used = self._used(members)
            boxes.append(_around(self.boxes[used]))
            scores.append(self.scores[members].max())
            if self.rles is not None:
                parts = [self.rles[i] for i in used]
                rles.append(parts[0] if len(parts) == 1 else coco_mask.merge(parts))
            if self.keypoints is not None:
                best = self.keypoints[used, :, 2].argmax(axis=0)
                keypoints.append(self.keypoints[used[best], np.arange(len(best))])
        kept = self._unsuppressed(groups, np.array(boxes, np.float64).reshape(-1, 4), rles)
        points = None
        if self.keypoints is not None:
            points = np.array([keypoints[i] for i in kept], np.float32).reshape(len(kept), *self.keypoints.shape[1:])
        return Prediction(
            self.size_hw,
            np.array([boxes[i] for i in kept], np.float32).reshape(-1, 4),
            np.array([self.labels[groups[i].members[0]] for i in kept], np.int64),
            np.array([scores[i] for i in kept], np.float32),
            None if self.rles is None else [rles[i] for i in kept],
            points,
        )

    def _used(self, members: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        """The members of a group whose union is the object."""
        is_of_whole_image, is_cut = self._is_whole_image[self.view[members]], self.is_cut[members].any(axis=1)
        shown_whole, parts, coarse = members[~is_cut & ~is_of_whole_image], members[is_cut], members[is_of_whole_image]
        if len(shown_whole):
            return shown_whole[[self.scores[shown_whole].argmax()]]
        if not len(coarse):
            return parts
        if len(parts) and _box_ious(_around(self.boxes[parts]), self.boxes[coarse])[0][0] >= COMPLETE:
            return parts
        return coarse

    def _is_better_seen(self) -> npt.NDArray[np.bool_]:
        """bool [D]: detections that another tile shows with more around them where they are cut, and does not cut."""
        is_of_whole_image = self._is_whole_image[self.view]
        reach = np.where(self.is_cut | is_of_whole_image[:, None], self._grown, self.boxes)
        rows = np.flatnonzero(self.is_cut.any(axis=1) | is_of_whole_image)
        better: npt.NDArray[np.bool_] = np.zeros(len(self.boxes), np.bool_)
        for view in np.flatnonzero(~self._is_whole_image).tolist():
            others = rows[self.view[rows] != view]
            low, high = np.split(self.windows[view] + self._inner[view] * self._margin[view] * [1, 1, -1, -1], 2)
            inside = ((reach[others, :2] >= low - 0.5) & (reach[others, 2:] <= high + 0.5)).all(axis=1)
            better[others[inside]] = True
        return better

    def _overlaps(self, view: int) -> npt.NDArray[np.bool_]:
        """bool [V]: other views that have pixels in common with this one."""
        low = np.maximum(self.windows[:, :2], self.windows[view, :2])
        high = np.minimum(self.windows[:, 2:], self.windows[view, 2:])
        common: npt.NDArray[np.bool_] = np.asarray((high > low).all(axis=1), np.bool_)
        common[view] = False
        return common

    def _first_that_agrees(self, member: int, rows: npt.NDArray[np.int64]) -> int | None:
        """The first of ``rows``, detections of one other view, that shows the same object; None without one."""
        if not len(rows):
            return None
        window = self._common_window(int(self.view[member]), int(self.view[rows[0]]))
        own, others = _clipped(self.boxes[[member]], window), _clipped(self.boxes[rows], window)
        iou, intersection = _box_ious(own[0], others)
        if self.rles is None:
            agreeing = np.flatnonzero(iou >= AGREEMENT)
            return int(rows[agreeing[0]]) if len(agreeing) else None
        rectangle = self._rectangle(int(self.view[member]), int(self.view[rows[0]]))
        for i in np.flatnonzero(intersection > 0).tolist():
            if _mask_iou(self.rles[member], self.rles[int(rows[i])], rectangle) >= AGREEMENT:
                return int(rows[i])
        return None

    def _common_window(self, view: int, other: int) -> npt.NDArray[np.float64]:
        """float64 [4] xyxy: what two views both show."""
        low = np.maximum(self.windows[view, :2], self.windows[other, :2])
        return np.concatenate([low, np.minimum(self.windows[view, 2:], self.windows[other, 2:])])

    def _rectangle(self, view: int, other: int) -> RLE:
        """The mask of what two views both show."""
        key = min(view, other), max(view, other)
        if key not in self._rectangles:
            x1, y1, x2, y2 = np.round(self._common_window(*key)).tolist()
            (self._rectangles[key],) = coco_mask.frPyObjects(np.array([[x1, y1, x2 - x1, y2 - y1]]), *self.size_hw)
        return self._rectangles[key]

    def _unsuppressed(self, groups: Sequence[_Group], boxes: npt.NDArray[np.float64], rles: Sequence[RLE]) -> list[int]:
        """The groups, highest score first, without those that are a better one again."""
        kept: list[int] = []
        kept_of_label: dict[int, list[int]] = {}
        for i, group in enumerate(groups):
            others = kept_of_label.setdefault(int(self.labels[group.members[0]]), [])
            iou, intersection = _box_ious(boxes[i], boxes[others])
            doubtful = intersection > 0 if self.rles is not None else iou > AGREEMENT
            for j in (others[position] for position in np.flatnonzero(doubtful)):
                if group.seen_by & groups[j].seen_by:
                    continue  # one view shows both: the network has decided that they are two objects
                if self.rles is None or _mask_iou(rles[i], rles[j], None) > AGREEMENT:
                    break
            else:
                kept.append(i)
                others.append(i)
        return kept


def _clipped(boxes: npt.NDArray[np.float64], window: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    return np.clip(boxes, np.tile(window[:2], 2), np.tile(window[2:], 2))


def _around(boxes: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """float64 [4]: the box around all boxes."""
    return np.concatenate([boxes[:, :2].min(axis=0), boxes[:, 2:].max(axis=0)])


def _box_ious(
    box: npt.NDArray[np.float64], others: npt.NDArray[np.float64]
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """float64 [N]: IoU of a box with others, 0 for empty boxes; and the area of the intersection."""
    low, high = np.maximum(box[:2], others[:, :2]), np.minimum(box[2:], others[:, 2:])
    intersection = (high - low).clip(min=0).prod(axis=1)
    areas = (others[:, 2:] - others[:, :2]).prod(axis=1) + (box[2:] - box[:2]).prod()
    return intersection / np.maximum(areas - intersection, 1e-12), intersection


def _mask_iou(first: RLE, second: RLE, window: RLE | None) -> float:
    """IoU of two masks inside a window, by their run lengths; 0 if they have no pixel in common."""
    common = float(coco_mask.area(coco_mask.merge([first, second], intersect=True)))
    if not common:
        return 0.0
    areas = 0.0
    for rle in (first, second):
        part = rle if window is None else coco_mask.merge([rle, window], intersect=True)
        areas += float(coco_mask.area(part))
    return common / max(areas - common, 1e-12)
