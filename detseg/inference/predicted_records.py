"""Convert the results of an image to a record, as annotation writers take it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from detseg.annotations.repair_log import RepairLog
from detseg.annotations.segmentation import Segmentation
from detseg.annotations.table import Record
from detseg.classes import ClassMap
from detseg.keypoints import KeypointSchema
from detseg.masks import rle_crop, segmentation_area, segmentation_box
from detseg.structures import RLE

TOLERANCE = 0.75
"""Pixels that an outline may be simplified by, so that it has few enough points to be corrected by hand."""

VISIBLE = 2.0
"""Visibility of predicted keypoints: the network's third number is a score."""


def predicted_record(
    line: Mapping[str, Any],
    class_map: ClassMap,
    schema: KeypointSchema | None,
    *,
    min_score: float,
    outlines: str,
    notes: RepairLog,
) -> Record:
    """The objects of one image. An object with a mask has the box of its mask, as readers of annotations compute it.

    Args:
        line: of ``predictions.jsonl``, with results.
        min_score: lowest score of the objects.
        outlines: "rle" for masks as they are; "rings" for polygons, one per part of a mask; "ring" for the largest one.
        notes: what outlines leave out is added.
    """
    size_hw = (int(line["height"]), int(line["width"]))
    results = [result for result in line["results"] if result["score"] >= min_score]
    segmentations = [_segmentation(result, outlines, str(line["file_name"]), notes) for result in results]
    boxes = [
        result["bbox"] if segmentation is None else segmentation_box(segmentation)
        for result, segmentation in zip(results, segmentations, strict=True)
    ]
    areas = [
        box[2] * box[3] if segmentation is None else segmentation_area(segmentation, size_hw)
        for box, segmentation in zip(boxes, segmentations, strict=True)
    ]
    count, keypoints = len(results), None
    if schema is not None:
        keypoints = np.array([result["keypoints"] for result in results], np.float64)
        keypoints = keypoints.reshape(count, len(schema.names), 3)
        keypoints[..., 2] = VISIBLE
    return Record(
        record=int(line["image_id"]) - 1,
        image_id=int(line["image_id"]),
        path=Path(str(line["file_name"])),
        member="",
        frame=-1,
        stored_hw=size_hw,
        size_hw=size_hw,
        orientation=1,
        group="",
        split="",
        class_index=np.full(1, -1, np.int64),
        boxes_xywh=np.array(boxes, np.float64).reshape(count, 4),
        labels=np.array([class_map.label_of(result["category"]) for result in results], np.int64),
        areas=np.array(areas, np.float64),
        iscrowd=np.zeros(count, np.bool_),
        ignore=np.zeros(count, np.bool_),
        difficult=np.zeros(count, np.bool_),
        segmentations=segmentations,
        keypoints=keypoints,
    )


def _segmentation(result: Mapping[str, Any], outlines: str, name: str, notes: RepairLog) -> Segmentation:
    if "segmentation" not in result:
        return None
    stored = result["segmentation"]
    rle: RLE = {"size": stored["size"], "counts": stored["counts"].encode()}
    rings, holes = mask_rings(rle)
    if not rings:
        notes.add("empty mask not written, only its box", name)
        return None
    if outlines == "rle":
        return rle
    if holes:
        notes.add("hole in a mask not written: outlines have none", name)
    if outlines == "ring" and len(rings) > 1:
        notes.add("smaller parts of a mask not written: a line has one outline", name)
        return rings[:1]
    return rings


def mask_rings(rle: RLE, tolerance: float = TOLERANCE) -> tuple[list[npt.NDArray[np.float64]], int]:
    """The outer outlines of the parts of a mask, float64 [V, 2] x, y in pixels, the longest first; and the number of
    holes, which they do not show.

    Args:
        tolerance: largest distance in pixels of a point of the outline from the polygon.
    """
    crop, top, left = rle_crop(rle)
    if not crop.size:
        return [], 0
    # OpenCV's outlines go through the centres of pixels. At twice the size, pixels at a left or upper edge of the mask
    # have even coordinates, those at a right or lower edge odd ones: both tell where the edge is.
    large = np.repeat(np.repeat(crop, 2, axis=0), 2, axis=1)
    contours, hierarchy = cv2.findContours(large, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)
    outer = [(contour + 1) // 2 for contour, links in zip(contours, hierarchy[0], strict=True) if links[3] < 0]
    outer.sort(key=len, reverse=True)
    rings = []
    for contour in outer:
        simple = cv2.approxPolyDP(contour, tolerance, closed=True)
        rings.append((simple if len(simple) > 2 else contour)[:, 0].astype(np.float64) + np.array([left, top]))
    return rings, len(contours) - len(outer)
