"""Read COCO JSON into a table."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt

from detseg.annotations.builder import TableBuilder
from detseg.annotations.columns import InstanceColumns
from detseg.annotations.formats.coco.ids import checked_annotations, checked_categories, checked_images, without_group
from detseg.annotations.formats.coco.json_file import CocoAnnotations, CocoCategory, CocoImage, load_coco_json, whole
from detseg.annotations.formats.coco.outlines import CocoRle, Outline
from detseg.annotations.frame import Frame, is_stored_frame
from detseg.annotations.image_files import find_image_files, first_few, read_headers
from detseg.annotations.listing import split_of
from detseg.annotations.repair_log import RepairLog
from detseg.annotations.segmentation import Segmentation
from detseg.annotations.table import AnnotationTable
from detseg.classes import ClassMap
from detseg.errors import DataError
from detseg.keypoints import KeypointSchema, keypoint_schema, unnamed
from detseg.masks import MAX_PIXELS, REACH, check_polygons, check_rle
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
    """Read a COCO file (instances or keypoints) and the headers of its images.

    The annotated size of each image is compared with the stored and the upright one (EXIF). Where only the upright
    one fits, coordinates are taken as they are; else they belong to the stored pixels and are turned upright as the
    image is. Labels follow the category ids in ascending order, so that the files of one data set agree.

    Args:
        annotations: the JSON file.
        images: folder of the images; None to look beside the file and in folders named like it; False to open no
            image and to trust the annotated sizes (for those who have only the JSON).
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
    notes = RepairLog()
    categories = checked_categories(without_group(data, source, notes), source)
    everything = ClassMap(tuple(category.name for category in categories), tuple(int(c.id) for c in categories))
    class_map = everything.select(classes, source)
    row_of = checked_images(data.images, source)
    rows, category_ids, annotation_ids = checked_annotations(data, row_of, categories, source, notes)
    label_of = class_map.labels_by_category_id()
    label_of_each = np.array([label_of.get(int(category.id), 0) for category in categories], np.int32)
    labels = label_of_each[np.searchsorted([int(category.id) for category in categories], category_ids)]
    schema = _schema([c for c in categories if c.id in label_of], data.annotations.keypoints, labels, notes, source)
    root, names, sizes = _images(data.images, path, source, images, split)

    builder = TableBuilder(class_map, root, source=source, bad_instances=bad_instances, keypoint_schema=schema)
    builder.notes.merge(notes)
    builder.add_images(
        names,
        [size[0] for size in sizes],
        list(row_of),
        orientation=[size[1] for size in sizes],
        stored_frame=[size[2] for size in sizes],
        split=split,
    )
    listed, order = data.annotations, data.annotations.order
    columns = _columns(listed, rows[order], labels[order], annotation_ids[order], schema)
    each = _OneByOne(builder, source, names, sizes, listed, columns, schema)
    builder.add_instances(
        columns, _is_regular(columns, listed, builder.sizes_hw, sizes, len(class_map), schema), each.add
    )
    return builder.build()


@dataclass(frozen=True)
class _OneByOne:
    """Adds the instances to which there is something to do or to say."""

    builder: TableBuilder
    source: str
    names: list[str]
    sizes: list[tuple[HW, int, bool]]
    listed: CocoAnnotations
    columns: InstanceColumns
    schema: KeypointSchema | None

    def add(self, i: int) -> None:
        listed, columns, notes = self.listed, self.columns, self.builder.notes
        position, row, label, number = (
            int(column[i]) for column in (listed.order, columns.image, columns.label, columns.annotation_id)
        )
        where = f"{self.source}, annotation {number} ({self.names[row]})"
        if not label:
            notes.add("instance of a class that was not selected left out", where)
            return
        area, given = float(listed.area[position]), listed.bbox[position]
        if area < 0:
            raise DataError(f"{where}: area {area:g} is negative; correct or remove it")
        stored_hw, orientation, stored_frame = self.sizes[row]
        box, segmentation, keypoints = Frame(stored_hw, orientation if stored_frame else 1).upright(
            None if np.isnan(given[0]) else given,
            _segmentation(listed.outlines[i], _own_hw(self.sizes[row]), where, notes),
            _keypoints(listed.keypoints.get(position), self.schema, where),
        )
        self.builder.add_instance(
            None if box is None else box.tolist(),
            label,
            segmentation=segmentation,
            area=None if np.isnan(area) else area,
            iscrowd=bool(columns.iscrowd[i]),
            ignore=bool(columns.ignore[i]),
            difficult=bool(columns.difficult[i]),
            annotation_id=number,
            keypoints=keypoints,
            where=where,
            image=row,
        )


def _is_regular(
    columns: InstanceColumns,
    listed: CocoAnnotations,
    sizes_hw: npt.NDArray[np.int64],
    sizes: list[tuple[HW, int, bool]],
    classes: int,
    schema: KeypointSchema | None,
) -> npt.NDArray[np.bool_]:
    """Which instances a table takes as they are, by column."""
    turned = np.array([stored_frame and orientation != 1 for _, orientation, stored_frame in sizes], np.bool_)
    own_hw = np.array([_own_hw(size) for size in sizes], np.int64).reshape(-1, 2)
    regular = columns.regular(sizes_hw, classes) & (columns.area >= 0) & ~turned[columns.image]
    regular &= listed.outlines.reach <= REACH * own_hw.max(axis=1, initial=0)[columns.image]
    regular &= (own_hw.prod(axis=1) <= MAX_PIXELS)[columns.image]
    regular[list(listed.outlines.others)] = False
    if schema is not None:
        regular &= ~np.isin(listed.order, list(listed.keypoints))
    return regular


def _columns(
    listed: CocoAnnotations,
    image: npt.NDArray[np.int64],
    labels: npt.NDArray[np.int32],
    annotation_ids: npt.NDArray[np.int64],
    schema: KeypointSchema | None,
) -> InstanceColumns:
    """The annotations as they are given, in ``listed.order``; without keypoints, and without the outlines of another
    form."""
    number, order = len(listed), listed.order
    boxes, area = listed.bbox[order], listed.area[order]
    outlined = listed.outlines.column.present()
    outlined[list(listed.outlines.others)] = True
    area = np.where(np.isnan(area) & ~outlined, boxes[:, 2] * boxes[:, 3], area)
    return InstanceColumns(
        image=image,
        boxes_xywh=boxes,
        label=labels,
        area=area,
        iscrowd=listed.iscrowd[order],
        ignore=(listed.ignore & ~listed.difficult)[order],
        difficult=listed.difficult[order],
        annotation_id=annotation_ids,
        segmentation=listed.outlines.column,
        keypoints=np.zeros((number, 0 if schema is None else len(schema.names), 3)),
    )


def _own_hw(size: tuple[HW, int, bool]) -> HW:
    """Height and width in which the file speaks, of stored size, orientation, and whether it means stored pixels."""
    stored_hw, orientation, stored_frame = size
    return stored_hw if stored_frame or orientation == 1 else upright_hw(stored_hw, orientation)


def _images(
    images: list[CocoImage], path: Path, source: str, folder: str | os.PathLike[str] | Literal[False] | None, split: str
) -> tuple[Path, list[str], list[tuple[HW, int, bool]]]:
    """Root folder, file names in it, and (stored size, orientation, whether the file speaks of stored pixels)."""
    names = [image.file_name for image in images]
    annotated = _annotated_hw(images, source)
    if folder is False:
        for hw, name in zip(annotated, names, strict=True):
            if hw is None:
                raise DataError(f"{source} ({name}): no width and height; add them, or give the images (--images)")
        return path.parent, names, [(hw, 1, False) for hw in annotated if hw is not None]
    root, names = find_image_files(names, path, folder, split, source)
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
            f"{first_few(misfits)}; give the images that were annotated (--images), or scale the annotations and "
            "correct width and height"
        )
    return root, names, sizes


def _annotated_hw(images: list[CocoImage], source: str) -> list[HW | None]:
    heights, widths = [image.height for image in images], [image.width for image in images]
    given = np.array([heights, widths])
    if given.dtype == np.int64:
        return list(zip(heights, widths, strict=True))  # type: ignore[arg-type]
    found: list[HW | None] = []
    for image in images:
        if image.width is None or image.height is None:
            found.append(None)
            continue
        where = f"{source} ({image.file_name})"
        found.append((whole(image.height, "height", where), whole(image.width, "width", where)))
    return found


def _segmentation(value: Outline, size_hw: HW, where: str, notes: RepairLog) -> Segmentation:
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
    categories: list[CocoCategory],
    keypoints: dict[int, list[float]],
    labels: npt.NDArray[np.int32],
    notes: RepairLog,
    source: str,
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
    number = max((len(values) for i, values in keypoints.items() if labels[i]), default=0) // 3
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
