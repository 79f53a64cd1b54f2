"""Read COCO JSON into a table."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt

from detseg.annotations.builder import TableBuilder
from detseg.annotations.columns import InstanceColumns
from detseg.annotations.coordinate_frame import Frame, is_stored_frame
from detseg.annotations.formats.coco.ids import checked_annotations, checked_categories, checked_images, without_group
from detseg.annotations.formats.coco.image_folders import find_image_files
from detseg.annotations.formats.coco.json_file import (
    CocoAnnotations,
    CocoCategory,
    CocoImage,
    Ids,
    load_coco_json,
    whole,
)
from detseg.annotations.formats.coco.lenient import rings_of
from detseg.annotations.formats.coco.outlines import CocoRle, Outline
from detseg.annotations.formats.coco.video_frames import name_frames
from detseg.annotations.image_files import annotated_images, first_few, read_headers
from detseg.annotations.instance_box import ROTATED_BOX, rotated_box
from detseg.annotations.listing import split_of
from detseg.annotations.repair_log import RepairLog
from detseg.annotations.segmentation import Segmentation
from detseg.annotations.table import AnnotationTable
from detseg.classes import ClassMap
from detseg.errors import DataError
from detseg.keypoints import KeypointSchema, keypoint_schema, unnamed
from detseg.masks import MAX_PERIMETER, MAX_PIXELS, REACH, check_polygons, check_rle
from detseg.orientation import upright_hw

HW = tuple[int, int]


def read_coco(
    annotations: str | os.PathLike[str],
    images: str | os.PathLike[str] | Literal[False] | None = None,
    *,
    split: str = "",
    bad_instances: str = "drop",
    classes: Sequence[str] | None = None,
    follow_links: bool = False,
    missing_images: str = "error",
    data_folder: str | os.PathLike[str] | None = None,
) -> AnnotationTable:
    """Read a COCO file (instances or keypoints) and the headers of its images.

    The annotated size of each image is compared with the stored and the upright size (EXIF). If only the upright size
    matches, coordinates are used unchanged; otherwise they refer to the stored pixels and are rotated upright together
    with the image. Labels follow the category ids in ascending order, so that the files of one data set agree.

    Args:
        annotations: the JSON file.
        images: image folder; None searches next to the file and in folders named after it; False opens no image and
            trusts the annotated sizes (if only the JSON file is available).
        split: value of the ``split`` column, and a hint for the name of the image folder.
        bad_instances: "drop" or "error", see :class:`TableBuilder`.
        classes: names that become labels 1, 2, ... in this order; instances of other classes are left out with a
            note, their images are not.
        follow_links: follow links that point outside the image folder.
        missing_images: "error" or "drop", see ``look_up_images``.
        data_folder: the folder of the data set, which contains the file and the images; None: the folder of the file.

    Raises:
        DataError: input that cannot be used, with the file, the annotation and the image.
        OSError: the JSON file or the image folder is missing.
    """
    path = Path(annotations)
    source = f"{path.parent.name}/{path.name}" if split_of(path.parent.name) else path.name  # train/x.json, val/x.json
    data = load_coco_json(path, source)
    notes = data.notes
    categories = checked_categories(without_group(data, source, notes), source)
    all_classes = ClassMap(tuple(category.name for category in categories), tuple(int(c.id) for c in categories))
    class_map = all_classes.select(classes, source)
    folder = Path(data_folder or path.parent)
    name_frames(data, folder if images in (None, False) else Path(images), source, follow_links)  # type: ignore[arg-type]
    row_of = checked_images(data.images, source)
    rows, category_ids, annotation_ids = checked_annotations(data, row_of, categories, source, notes)
    _check_located(data.annotations, source)
    label_of = class_map.labels_by_category_id()
    category_labels = np.array([label_of.get(int(category.id), 0) for category in categories], np.int32)
    labels = category_labels[np.searchsorted([int(category.id) for category in categories], category_ids)]
    schema = _schema([c for c in categories if c.id in label_of], data.annotations.keypoints, labels, notes, source)
    root, names = path.parent, [image.file_name for image in data.images]
    if images is not False:
        root, names = find_image_files(names, path, images, split, source, folder, notes, follow_links, missing_images)
    listed_images, image_ids, left_out = data.images, list(row_of), np.zeros(len(rows), np.bool_)
    if images is not False and "" in names:  # images without a file
        kept = [row for row, name in enumerate(names) if name]
        rows, left_out = _rows_among(kept, rows, len(names))
        names, image_ids = [names[row] for row in kept], [image_ids[row] for row in kept]
        listed_images = [listed_images[row] for row in kept]
    sizes = _sizes(listed_images, root, names, source, images, notes)

    builder = TableBuilder(class_map, root, source=source, bad_instances=bad_instances, keypoint_schema=schema)
    builder.notes.merge(notes)
    builder.add_images(
        names,
        [size[0] for size in sizes],
        image_ids,
        orientation=[size[1] for size in sizes],
        stored_frame=[size[2] for size in sizes],
        split=split,
    )
    listed, order = data.annotations, data.annotations.order
    columns = _columns(listed, rows[order], labels[order], annotation_ids[order], schema)
    irregular = _IrregularInstances(builder, source, names, sizes, listed, columns, schema, left_out[order])
    regular = _is_regular(columns, listed, builder.sizes_hw, sizes, len(class_map), schema)
    builder.add_instances(columns, regular & ~irregular.left_out, irregular.add)
    table = builder.build()
    return replace(table, text_ids=data.text_ids) if data.text_ids else table


def _rows_among(kept: list[int], rows: Ids, number: int) -> tuple[Ids, npt.NDArray[np.bool_]]:
    """Rows of ``number`` images as rows among those ``kept``, and which are not among them (their row is then 0)."""
    new_row = np.full(number, -1)
    new_row[kept] = np.arange(len(kept))
    return np.maximum(new_row[rows], 0), new_row[rows] < 0


def _check_located(listed: CocoAnnotations, source: str) -> None:
    """DataError if no annotation has a box, an outline or keypoints: the labels are those of whole images."""
    outlined = listed.outlines.others or listed.outlines.column.present().any()
    if not len(listed) or outlined or listed.keypoints or not np.isnan(listed.bbox[:, 0]).all():
        return
    raise DataError(
        f"{source}: none of the {len(listed)} annotations has a box or an outline; export boxes or polygons, or, for "
        "classes of whole images, put the images into a folder for each class"
    )


@dataclass(frozen=True)
class _IrregularInstances:
    """Adds, one by one, the instances that need a conversion, a repair or an error message."""

    builder: TableBuilder
    source: str
    names: list[str]
    sizes: list[tuple[HW, int, bool]]
    listed: CocoAnnotations
    columns: InstanceColumns
    schema: KeypointSchema | None
    left_out: npt.NDArray[np.bool_]

    def add(self, i: int) -> None:
        if self.left_out[i]:  # its image has no file
            return
        listed, columns, notes = self.listed, self.columns, self.builder.notes
        position, row, label, number = (
            int(column[i]) for column in (listed.order, columns.image, columns.label, columns.annotation_id)
        )
        where = f"{self.source}, annotation {number} ({self.names[row]})"
        if not label:
            notes.add("instance of an unselected class left out", where)
            return
        area, stated_box = float(listed.area[position]), listed.bbox[position]
        if area < 0 and (stated_box[2:] < 0).any():
            area = float("nan")  # width x height, of which one is negative
        if area < 0:
            raise DataError(f"{where}: area {area:g} is negative; correct or remove it")
        stored_hw, orientation, stored_frame = self.sizes[row]
        outline = _segmentation(listed.outlines[i], _frame_hw(self.sizes[row]), where, notes)
        if np.isnan(stated_box[0]) and outline is not None:
            notes.add("box of the outline used: there is no other", where)
        if outline is None and position in listed.rotation:
            notes.add(ROTATED_BOX, where)
            x, y, width, height = stated_box.tolist()
            stated_box = np.array(rotated_box((x, y, width, height), listed.rotation[position]))
        box, segmentation, keypoints = Frame(stored_hw, orientation if stored_frame else 1).to_upright(
            None if np.isnan(stated_box[0]) else stated_box,
            outline,
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
    """bool [N]: which instances need no repair or conversion and can be added as whole columns."""
    rotated = np.array([stored_frame and orientation != 1 for _, orientation, stored_frame in sizes], np.bool_)
    frame_hw = np.array([_frame_hw(size) for size in sizes], np.int64).reshape(-1, 2)
    regular = columns.regular(sizes_hw, classes) & (columns.area >= 0) & ~rotated[columns.image]
    regular &= listed.outlines.max_coordinate <= REACH * frame_hw.max(axis=1, initial=0)[columns.image]
    regular &= (frame_hw.prod(axis=1) <= MAX_PIXELS)[columns.image]
    column = listed.outlines.column
    points = np.diff(column.ring_start[column.rings])
    regular &= listed.outlines.max_coordinate <= MAX_PERIMETER / 2 / np.maximum(points, 1)
    regular[list(listed.outlines.others)] = False
    if schema is not None:
        regular &= ~np.isin(listed.order, list(listed.keypoints))
    if listed.rotation:
        regular &= ~np.isin(listed.order, list(listed.rotation))
    return regular


def _columns(
    listed: CocoAnnotations,
    image: npt.NDArray[np.int64],
    labels: npt.NDArray[np.int32],
    annotation_ids: npt.NDArray[np.int64],
    schema: KeypointSchema | None,
) -> InstanceColumns:
    """The annotations as in the file, in ``listed.order``; without keypoints and without ``listed.outlines.others``."""
    number, order = len(listed), listed.order
    boxes, area = listed.bbox[order], listed.area[order]
    outlined = listed.outlines.column.present()
    outlined[list(listed.outlines.others)] = True
    with np.errstate(over="ignore", invalid="ignore"):  # infinite areas are found later
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


def _frame_hw(size: tuple[HW, int, bool]) -> HW:
    """Height and width of the file's coordinate frame, from stored size, orientation, and whether the frame is the
    stored pixels."""
    stored_hw, orientation, stored_frame = size
    return stored_hw if stored_frame or orientation == 1 else upright_hw(stored_hw, orientation)


def _sizes(
    entries: list[CocoImage],
    root: Path,
    names: list[str],
    source: str,
    images: str | os.PathLike[str] | Literal[False] | None,
    notes: RepairLog,
) -> list[tuple[HW, int, bool]]:
    """(stored size, orientation, whether coordinates refer to stored pixels); opens no file if ``images`` is False."""
    annotated = _annotated_hw(entries, source)
    for row, hw in enumerate(annotated):
        if hw is not None and 0 in hw:  # VIA's export
            notes.add("width or height 0, taken from the image", f"{source} ({names[row]})")
            annotated[row] = None
    if images is False:
        for hw, name in zip(annotated, names, strict=True):
            if hw is None:
                raise DataError(
                    f"{source} ({name}): no width and height; add them, or pass the image folder (--images)"
                )
        return [(hw, 1, False) for hw in annotated if hw is not None]
    headers = read_headers(root, names, source)
    sizes, mismatches = [], []
    for name, hw, header in zip(names, annotated, headers, strict=True):
        stored_frame = is_stored_frame(hw, header)
        if stored_frame is None and hw is not None:
            (height, width), (file_height, file_width) = hw, header.size_hw
            mismatches.append(f"{name} (annotated {width} x {height}, file {file_width} x {file_height})")
        sizes.append((header.size_hw, header.orientation, bool(stored_frame)))
    if mismatches:
        raise DataError(
            f"{source}: the size (width x height) of {len(mismatches)} of {len(names)} images differs from the "
            f"annotated size: {first_few(mismatches)}; {annotated_images(images)}, or scale the "
            "annotations and correct width and height"
        )
    return sizes


def _annotated_hw(images: list[CocoImage], source: str) -> list[HW | None]:
    heights, widths = [image.height for image in images], [image.width for image in images]
    if np.array([heights, widths]).dtype == np.int64:
        return list(zip(heights, widths, strict=True))  # type: ignore[arg-type]
    sizes: list[HW | None] = []
    for image in images:
        if image.width is None or image.height is None:
            sizes.append(None)
            continue
        where = f"{source} ({image.file_name})"
        sizes.append((whole(image.height, "height", where), whole(image.width, "width", where)))
    return sizes


def _segmentation(value: Outline, size_hw: HW, where: str, notes: RepairLog) -> Segmentation:
    """The validated segmentation; rings of fewer than three points are left out with a note."""
    if not value:
        return None
    if isinstance(value, CocoRle):
        return check_rle({"size": value.size, "counts": value.counts}, size_hw, where)
    if rings_of(value) != value:
        notes.add("outline without a list of rings read as one ring", where)
        value = rings_of(value)
        assert isinstance(value, list)
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
    """The keypoint schema shared by the selected categories; None if they have no keypoints."""
    with_keypoints = [category for category in categories if category.keypoints]
    for category in with_keypoints[1:]:
        if category.keypoints != with_keypoints[0].keypoints:
            raise DataError(
                f"{source}: categories {with_keypoints[0].name!r} and {category.name!r} have different keypoints; "
                "select classes with the same keypoints (--classes)"
            )
    if with_keypoints:
        first = with_keypoints[0]
        names = list(first.keypoints or ())
        skeleton = first.skeleton or []
        if any(not 1 <= end <= len(names) for line in skeleton for end in line):
            notes.add("skeleton with points that do not exist left out", f"{source}, category {first.name!r}")
            skeleton = []
        sigmas = first.sigmas or []
        if sigmas and (len(sigmas) != len(names) or not all(0 < sigma < 10 for sigma in sigmas)):
            raise DataError(
                f"{source}: category {first.name!r} has the sigmas {sigmas} for {len(names)} keypoints; set each to a "
                "number above 0, such as 0.05, or remove them"
            )
        return keypoint_schema(names, [(a - 1, b - 1) for a, b in skeleton], sigmas)
    number = max((len(values) for i, values in keypoints.items() if labels[i]), default=0) // 3
    if not number:
        return None
    notes.add(f"keypoints without names, named point 1 to point {number}", source)
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
