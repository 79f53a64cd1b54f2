"""COCO JSON to a table and back."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import msgspec
import numpy as np
import numpy.typing as npt

from detseg.annotations.builder import TableBuilder
from detseg.annotations.formats.coco_json import (
    CocoAnnotation,
    CocoCategory,
    CocoFile,
    CocoImage,
    CocoRle,
    load_coco_json,
    whole,
)
from detseg.annotations.frame import Frame, is_stored_frame
from detseg.annotations.keypoints import keypoint_schema, unnamed
from detseg.annotations.listing import split_of
from detseg.annotations.notes import Notes
from detseg.annotations.pictures import find_pictures, first_few, read_headers
from detseg.annotations.segmentation import Segmentation
from detseg.annotations.table import AnnotationTable, KeypointSchema
from detseg.classes import ClassMap
from detseg.errors import DataError
from detseg.files import atomic_write
from detseg.masks import check_polygons, check_rle
from detseg.orientation import upright_hw

HW = tuple[int, int]


def read_coco(
    annotations: str | os.PathLike[str],
    images: str | os.PathLike[str] | Literal[False] | None = None,
    *,
    split: str = "",
    bad_instances: str = "drop",
    classes: Sequence[str] | None = None,
) -> AnnotationTable:
    """Read a COCO file (instances or keypoints) and the headers of its pictures.

    The annotated size of each picture is compared with the stored and the upright one (EXIF). Where only the upright
    one fits, coordinates are taken as they are; else they belong to the stored pixels and are turned upright as the
    picture is. Labels follow the category ids in ascending order, so that the files of one data set agree.

    Args:
        annotations: the JSON file.
        images: folder of the pictures; None to look beside the file and in folders named like it; False to open no
            picture and to trust the annotated sizes (for those who have only the JSON).
        split: what the ``split`` column says, and a hint for the folder's name.
        bad_instances: "drop" or "error", see :class:`TableBuilder`.
        classes: names that become labels 1, 2, ... in this order; instances of other classes are left out with a
            note, their images stay.

    Raises:
        DataError: what cannot be used, with the file, the annotation and the image.
        OSError: the JSON file or the image folder is missing.
    """
    path = Path(annotations)
    source = f"{path.parent.name}/{path.name}" if split_of(path.parent.name) else path.name  # train/x.json, val/x.json
    data = load_coco_json(path, source)
    notes = Notes()
    categories = _checked_categories(_without_group(data, source, notes), source)
    everything = ClassMap(tuple(category.name for category in categories), tuple(int(c.id) for c in categories))
    class_map = everything.select(classes, source)
    label_of = class_map.labels_by_category_id()
    by_image = _by_image(data, categories, source, notes)
    selected = [category for category in categories if category.id in label_of]
    schema = _schema(selected, [a for a in data.annotations if a.category_id in label_of], notes, source)
    root, names, sizes = _pictures(data.images, path, source, images, split)

    builder = TableBuilder(class_map, root, source=source, bad_instances=bad_instances, keypoint_schema=schema)
    builder.notes.merge(notes)
    for image, name, (stored_hw, orientation, stored_frame) in zip(data.images, names, sizes, strict=True):
        image_id = int(image.id)
        builder.add_image(
            name, stored_hw, image_id=image_id, orientation=orientation, stored_frame=stored_frame, split=split
        )
        frame = Frame(stored_hw, orientation if stored_frame else 1)
        own_hw = stored_hw if stored_frame else upright_hw(stored_hw, orientation)
        for annotation in by_image.get(image_id, ()):
            where = f"{source}, annotation {int(annotation.id or 0)} ({name})"
            label = label_of.get(int(annotation.category_id))
            if label is None:
                builder.notes.add("instance of a class that was not selected left out", where)
                continue
            if annotation.area is not None and annotation.area < 0:
                raise DataError(f"{where}: area {annotation.area:g} is negative; correct or remove it")
            box, segmentation, keypoints = frame.upright(
                None if annotation.bbox is None else np.array(annotation.bbox),
                _segmentation(annotation.segmentation, own_hw, where, builder.notes),
                _keypoints(annotation.keypoints, schema, where),
            )
            builder.add_instance(
                None if box is None else box.tolist(),
                label,
                segmentation=segmentation,
                area=annotation.area,
                iscrowd=bool(annotation.iscrowd),
                ignore=bool(annotation.ignore) and not annotation.difficult,
                difficult=bool(annotation.difficult),
                annotation_id=int(annotation.id or 0),
                keypoints=keypoints,
                where=where,
            )
    return builder.build()


def write_coco(table: AnnotationTable, path: str | os.PathLike[str]) -> None:
    """Write a table as COCO JSON, atomically, in the data set's own frame.

    Category ids and image ids are kept, annotations are numbered from 1 (pycocotools scores id 0 as unmatched);
    coordinates of images whose source spoke of stored pixels are turned back to those.

    Raises:
        DataError: the table has class labels of whole pictures, which COCO has no place for.
    """
    if table.has_class_index:
        raise DataError(f"{table.source}: COCO has no place for the classes of whole pictures; keep the folders")
    schema = table.keypoint_schema
    points: dict[str, Any] = {}
    if schema is not None:
        points = {"keypoints": schema.names, "skeleton": [(a + 1, b + 1) for a, b in schema.skeleton]}
        if schema.sigmas != keypoint_schema(schema.names).sigmas:
            points["sigmas"] = schema.sigmas
    categories = [
        {"id": number, "name": name, **points}
        for number, name in zip(table.class_map.category_ids, table.class_map.names, strict=True)
    ]
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for index, record in enumerate(table):
        stored_frame = bool(table.stored_frame[index])
        height, width = record.stored_hw if stored_frame else record.size_hw
        name = f"{table.media[index]}/{record.member}" if record.member else str(table.media[index])
        images.append({"id": record.image_id, "file_name": name, "width": width, "height": height})
        frame = Frame(record.stored_hw, record.orientation if stored_frame else 1)
        for row, label in enumerate(record.labels.tolist()):
            box, segmentation, keypoints = frame.own(
                record.boxes_xywh[row],
                record.segmentations[row],
                None if record.keypoints is None else record.keypoints[row],
            )
            assert box is not None
            annotation = {
                "id": len(annotations) + 1,
                "image_id": record.image_id,
                "category_id": table.class_map.category_id_of(label),
                "bbox": box.tolist(),
                "area": float(record.areas[row]),
                "iscrowd": int(record.iscrowd[row]),
                "segmentation": _written(segmentation),
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


def _written(segmentation: Segmentation) -> Any:
    if segmentation is None:
        return []  # the key is always there: pycocotools and others ask for it without looking
    if isinstance(segmentation, dict):
        return {"size": segmentation["size"], "counts": segmentation["counts"].decode("ascii")}
    return [ring.ravel().tolist() for ring in segmentation]


def _without_group(data: CocoFile, source: str, notes: Notes) -> list[CocoCategory]:
    """The categories without Roboflow's id 0 of the whole project: no annotation uses it, and it is the supercategory
    of all others (it may have the name of one of them)."""
    groups = [category for category in data.categories if category.id == 0]
    others = [category for category in data.categories if category.id != 0]
    if len(groups) != 1 or not others or any(annotation.category_id == 0 for annotation in data.annotations):
        return data.categories
    if any(category.supercategory != groups[0].name for category in others):
        return data.categories
    notes.add("unused category 0, the supercategory of all others, left out", f"{source}: {groups[0].name}")
    return others


def _checked_categories(categories: list[CocoCategory], source: str) -> list[CocoCategory]:
    """Categories by ascending id; DataError for an id or a name that occurs twice."""
    for category in categories:
        category.id = whole(category.id, "id", f"{source}, category {category.name!r}")
    for what, values in (
        ("name", [category.name for category in categories]),
        ("id", [category.id for category in categories]),
    ):
        value, times = max(Counter(values).items(), key=lambda item: item[1], default=("", 0))
        if times > 1:
            double = ", ".join(f"{c.id} {c.name!r}" for c in categories if value in (c.id, c.name))
            raise DataError(
                f"{source}: {times} categories have the {what} {value!r} (ids and names: {double}); rename one, or "
                "give the annotations of both one id"
            )
    return sorted(categories, key=lambda category: category.id)


def _by_image(
    data: CocoFile, categories: list[CocoCategory], source: str, notes: Notes
) -> dict[int, list[CocoAnnotation]]:
    """Annotations of each image id, in the file's order; ids are checked here."""
    known = {category.id for category in categories}
    names: dict[int, str] = {}
    for image in data.images:
        image_id = whole(image.id, "image id", f"{source} ({image.file_name})")
        if image_id in names:
            raise DataError(
                f"{source}: image id {image_id} is used by {names[image_id]} and by {image.file_name}; give every "
                "image an id of its own"
            )
        names[image_id] = image.file_name
    by_image: dict[int, list[CocoAnnotation]] = {}
    seen: set[int] = set()
    for position, annotation in enumerate(data.annotations):
        place = f"{source}, annotation number {position}"
        number = position if annotation.id is None else whole(annotation.id, "id", place)
        annotation.id = number
        image_name = names.get(whole(annotation.image_id, "image_id", place))
        if image_name is None:
            raise DataError(
                f"{source}, annotation {number}: image_id {annotation.image_id} is not among the images; add the image "
                "or remove the annotation"
            )
        where = f"{source}, annotation {number} ({image_name})"
        if whole(annotation.category_id, "category_id", where) not in known:
            ids = first_few([str(category.id) for category in categories]) or "none"
            remedy = "add the category or remove the annotation"
            if not categories:
                remedy = "captions have no categories: give the file of the instances, or add the categories"
            raise DataError(
                f"{where}: category_id {annotation.category_id} is not among the categories ({ids}); {remedy}"
            )
        if number in seen:
            notes.add("annotation id used before (ids are not used further)", where)
        seen.add(number)
        by_image.setdefault(int(annotation.image_id), []).append(annotation)
    return by_image


def _pictures(
    images: list[CocoImage], path: Path, source: str, folder: str | os.PathLike[str] | Literal[False] | None, split: str
) -> tuple[Path, list[str], list[tuple[HW, int, bool]]]:
    """Root folder, file names in it, and (stored size, orientation, whether the file speaks of stored pixels)."""
    names = [image.file_name for image in images]
    annotated = [_annotated_hw(image, source) for image in images]
    if folder is False:
        for hw, name in zip(annotated, names, strict=True):
            if hw is None:
                raise DataError(f"{source} ({name}): no width and height; add them, or give the pictures (--images)")
        return path.parent, names, [(hw, 1, False) for hw in annotated if hw is not None]
    root, names = find_pictures(names, path, folder, split, source)
    headers = read_headers(root, names, source)
    sizes, misfits = [], []
    for name, hw, header in zip(names, annotated, headers, strict=True):
        stored_frame = is_stored_frame(hw, header)
        if stored_frame is None and hw is not None:
            (height, width), (file_height, file_width) = hw, header.size_hw
            misfits.append(f"{name} (annotated {width} x {height}, file {file_width} x {file_height})")
        sizes.append((header.size_hw, header.orientation, bool(stored_frame)))
    if misfits:
        raise DataError(
            f"{source}: {len(misfits)} of {len(names)} images have another size (width x height) than annotated: "
            f"{first_few(misfits)}; give the pictures that were annotated (--images), or scale the annotations and "
            "correct width and height"
        )
    return root, names, sizes


def _annotated_hw(image: CocoImage, source: str) -> HW | None:
    if image.width is None or image.height is None:
        return None
    where = f"{source} ({image.file_name})"
    return whole(image.height, "height", where), whole(image.width, "width", where)


def _segmentation(value: list[list[float]] | CocoRle | None, size_hw: HW, where: str, notes: Notes) -> Segmentation:
    """The checked outline; rings of fewer than three points are left out with a note."""
    if not value:
        return None
    if isinstance(value, CocoRle):
        return check_rle({"size": value.size, "counts": value.counts}, size_hw, where)
    rings = [ring for ring in value if len(ring) >= 6]
    if len(rings) < len(value):
        notes.add("polygon ring with fewer than three points left out", where)
    if not rings:
        notes.add("instance left without a mask", where)
        return None
    return check_polygons(rings, size_hw, where)


def _schema(
    categories: list[CocoCategory], annotations: list[CocoAnnotation], notes: Notes, source: str
) -> KeypointSchema | None:
    """The one keypoint schema of the selected categories; None if they have no keypoints."""
    described = [category for category in categories if category.keypoints]
    for category in described[1:]:
        if category.keypoints != described[0].keypoints:
            raise DataError(
                f"{source}: categories {described[0].name!r} and {category.name!r} have different keypoints; select "
                "classes with the same ones (--classes)"
            )
    if described:
        names = list(described[0].keypoints or ())
        skeleton = described[0].skeleton or []
        if any(not 1 <= end <= len(names) for line in skeleton for end in line):
            notes.add("skeleton with points that do not exist left out", f"{source}, category {described[0].name!r}")
            skeleton = []
        sigmas = described[0].sigmas or []
        if sigmas and (len(sigmas) != len(names) or not all(0 < sigma < 10 for sigma in sigmas)):
            raise DataError(
                f"{source}: category {described[0].name!r} has the sigmas {sigmas} for {len(names)} keypoints; give "
                "each a number above 0, such as 0.05, or leave them out"
            )
        return keypoint_schema(names, [(a - 1, b - 1) for a, b in skeleton], sigmas)
    number = max((len(annotation.keypoints or ()) for annotation in annotations), default=0) // 3
    if not number:
        return None
    notes.add(f"keypoints without names, called point 1 to point {number}", source)
    return keypoint_schema(unnamed(number))


def _keypoints(values: list[float] | None, schema: KeypointSchema | None, where: str) -> npt.NDArray[np.float64] | None:
    if schema is None or not values:
        return None
    if len(values) != 3 * len(schema.names):
        raise DataError(
            f"{where}: {len(values)} keypoint numbers, expected {3 * len(schema.names)} (x, y, visibility of "
            f"{len(schema.names)} points); complete or remove them"
        )
    return np.array(values, np.float64).reshape(-1, 3)
