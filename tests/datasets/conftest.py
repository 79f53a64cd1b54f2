"""Small tables with generated images."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from detseg.annotations.segmentation import SegmentationColumn
from detseg.annotations.table import AnnotationTable
from detseg.classes import ClassMap
from detseg.keypoints import KeypointSchema

CLASSES = ClassMap.from_names(("cell", "dot", "bar"))


def ellipse(cx: float, cy: float, rx: float, ry: float) -> np.ndarray:
    angle = np.linspace(0, 2 * np.pi, 24, endpoint=False)
    return np.stack([cx + rx * np.cos(angle), cy + ry * np.sin(angle)], axis=1)


def draw_image(path: Path, size_hw: tuple[int, int], seed: int) -> None:
    pixels = np.random.default_rng(seed).integers(0, 255, (max(2, size_hw[0] // 8), max(2, size_hw[1] // 8), 3))
    cv2.imwrite(str(path), cv2.resize(pixels.astype(np.uint8), size_hw[::-1]))


@pytest.fixture
def make_table(tmp_path: Path) -> Callable[..., AnnotationTable]:
    """``make_table(sizes_hw, instances)``: one image per size, with the instances of the corresponding list.

    An instance is a tuple of four numbers (an xywh box), an array [V, 2] (a polygon), or a list of four numbers (the
    polygon of an ellipse: centre x, y and radii).
    """

    def build(
        sizes_hw: Sequence[tuple[int, int]],
        instances: Sequence[Sequence[Any]],
        *,
        orientation: int = 1,
        class_index: Sequence[Sequence[int]] | None = None,
        keypoints: np.ndarray | None = None,
        keypoint_schema: KeypointSchema | None = None,
        crowd: Sequence[int] = (),
        ignore: Sequence[int] = (),
        suffix: str = ".png",
    ) -> AnnotationTable:
        names = [f"image_{i}{suffix}" for i in range(len(sizes_hw))]
        stored = [size if orientation < 5 else size[::-1] for size in sizes_hw]
        for i, name in enumerate(names):
            draw_image(tmp_path / name, stored[i], seed=i)
        boxes, segmentations, counts = [], [], []
        for group in instances:
            counts.append(len(group))
            for instance in group:
                if isinstance(instance, tuple):
                    boxes.append(instance)
                    segmentations.append(None)
                else:
                    points = ellipse(*instance) if isinstance(instance, list) else instance
                    boxes.append((*points.min(0), *(points.max(0) - points.min(0))))
                    segmentations.append([points])
        n, total = len(sizes_hw), len(boxes)
        stop = np.cumsum(counts, dtype=np.int64)
        strings = np.dtypes.StringDType()
        xywh = np.array(boxes, np.float64).reshape(-1, 4)
        return AnnotationTable(
            class_map=CLASSES,
            root=tmp_path,
            image_id=np.arange(n) + 100,
            record=np.arange(n),
            media=np.array(names, dtype=strings),
            member=np.array([""] * n, dtype=strings),
            frame=np.full(n, -1, np.int32),
            height=np.array([size[0] for size in stored], np.int32),
            width=np.array([size[1] for size in stored], np.int32),
            orientation=np.full(n, orientation, np.int8),
            stored_frame=np.zeros(n, bool),
            group=np.array([""] * n, dtype=strings),
            split=np.array([""] * n, dtype=strings),
            class_index=np.full((n, 1), -1) if class_index is None else np.array(class_index, np.int64),
            start=stop - counts,
            stop=stop,
            boxes_xywh=xywh,
            label=(np.arange(total) % 3 + 1).astype(np.int32),
            area=xywh[:, 2] * xywh[:, 3],
            iscrowd=np.isin(np.arange(total), crowd),
            ignore=np.isin(np.arange(total), ignore),
            difficult=np.zeros(total, np.bool_),
            annotation_id=np.arange(total) + 1,
            segmentation=SegmentationColumn.from_list(segmentations),
            keypoints=keypoints,
            keypoint_schema=keypoint_schema,
            source="generated.json",
        )

    return build
