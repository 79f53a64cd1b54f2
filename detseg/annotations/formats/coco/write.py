"""Write a table as COCO JSON: one file, or a folder in COCO's layout."""

from __future__ import annotations

import os
from typing import Any

import msgspec
import numpy as np

from detseg.annotations.coordinate_frame import Frame
from detseg.annotations.formats.shared.output_paths import new_folder
from detseg.annotations.formats.shared.write_result import WriteResult
from detseg.annotations.formats.shared.writing import image_names
from detseg.annotations.repair_log import RepairLog
from detseg.annotations.segmentation import Segmentation
from detseg.annotations.table import AnnotationTable
from detseg.errors import DataError
from detseg.keypoints import keypoint_schema
from detseg.runtime.files import atomic_write


def write_coco(table: AnnotationTable, path: str | os.PathLike[str]) -> None:
    """Write a table as COCO JSON, atomically, in the coordinate frame of the source data set.

    Category ids and image ids are preserved, annotations are numbered from 1 (pycocotools scores id 0 as unmatched);
    if the source coordinates referred to stored pixels, they are rotated back to those.

    Raises:
        DataError: the table has class labels of whole images, which COCO cannot store.
    """
    if table.has_class_index:
        raise DataError(f"{table.source}: COCO cannot store the classes of whole images; keep the folders")
    schema = table.keypoint_schema
    points: dict[str, Any] = {}
    if schema is not None:
        points = {"keypoints": schema.names, "skeleton": [(a + 1, b + 1) for a, b in schema.skeleton]}
        if schema.sigmas != keypoint_schema(schema.names).sigmas:
            points["sigmas"] = schema.sigmas
    categories = [
        {"id": table.text_ids.category(number), "name": name, **points}
        for number, name in zip(table.class_map.category_ids, table.class_map.names, strict=True)
    ]
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for index, record in enumerate(table):
        stored_frame = bool(table.stored_frame[index])
        height, width = record.stored_hw if stored_frame else record.size_hw
        name = f"{table.media[index]}/{record.member}" if record.member else str(table.media[index])
        image_id = table.text_ids.image(record.image_id)
        images.append({"id": image_id, "file_name": name, "width": width, "height": height})
        frame = Frame(record.stored_hw, record.orientation if stored_frame else 1)
        for row, label in enumerate(record.labels.tolist()):
            box, segmentation, keypoints = frame.from_upright(
                record.boxes_xywh[row],
                record.segmentations[row],
                None if record.keypoints is None else record.keypoints[row],
            )
            assert box is not None
            annotation = {
                "id": len(annotations) + 1,
                "image_id": image_id,
                "category_id": table.text_ids.category(table.class_map.category_id_of(label)),
                "bbox": box.tolist(),
                "area": float(record.areas[row]),
                "iscrowd": int(record.iscrowd[row]),
                "segmentation": _segmentation_json(segmentation),
            }
            if record.ignore[row] or record.difficult[row]:
                annotation["ignore"] = 1
            if record.difficult[row]:
                annotation["difficult"] = 1
            if keypoints is not None:
                annotation["keypoints"] = keypoints.ravel().tolist()
                annotation["num_keypoints"] = int((keypoints[:, 2] > 0).sum())
            annotations.append(annotation)
    with atomic_write(path) as file:
        file.write(msgspec.json.encode({"images": images, "annotations": annotations, "categories": categories}))


def _segmentation_json(segmentation: Segmentation) -> Any:
    if segmentation is None:
        return []  # the key is always written: pycocotools and others read it without checking that it exists
    if isinstance(segmentation, dict):
        return {"size": segmentation["size"], "counts": segmentation["counts"].decode("ascii")}
    return [ring.ravel().tolist() for ring in segmentation]


def write_coco_folder(table: AnnotationTable, folder: str | os.PathLike[str]) -> WriteResult:
    """Write one JSON file for each split of the source, or ``instances.json`` if it has none.

    COCO stores everything in a table of instances except the groups of its images.

    Raises:
        DataError: ``folder`` is not empty, or the table cannot be written (see ``image_names``).
    """
    notes = RepairLog()
    for row in np.flatnonzero(table.group != ""):
        notes.add("group of an image not written", table[int(row)].name)
    names = image_names(table, "COCO")
    root = new_folder(folder)
    for split in sorted(set(table.split.tolist())):
        name = f"instances_{split}.json" if split else "instances.json"
        write_coco(table.subset(np.flatnonzero(table.split == split)), root / "annotations" / name)
    return WriteResult([f"images/{image}" for image in names], notes)
