"""Build a table from boxes, polygons and other shapes drawn in labelling tools."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from detseg.annotations.builder import TableBuilder
from detseg.annotations.coordinate_frame import Frame
from detseg.annotations.formats.shared.label_rows import LabelRow, field_rows, labels_table, tag_rows
from detseg.annotations.image_files import annotated_images, first_few, read_headers
from detseg.annotations.image_lookup import ImageReference, look_up_images
from detseg.annotations.instance_box import extent_xywh
from detseg.annotations.repair_log import RepairLog
from detseg.annotations.segmentation import Segmentation
from detseg.annotations.table import AnnotationTable
from detseg.classes import ClassMap
from detseg.errors import DataError
from detseg.images import ImageHeader
from detseg.keypoints import KeypointSchema
from detseg.masks import check_polygons
from detseg.orientation import upright_hw
from detseg.structures import RLE

HW = tuple[int, int]
CORNERS = 72
"""Vertices of the polygon that approximates a circle or an ellipse: its area is 0.13 % smaller."""

UNSUPPORTED_SHAPE = "shape that is neither box nor polygon left out"

ONLY_CLASS = "object"
"""The class of all boxes of a file that states none."""


@dataclass
class ShapeInstance:
    """One object, in the coordinates of its file; numbers that are not finite are rejected later.

    Attributes:
        class_name: "" where the file states none.
        where: file and position, the beginning of messages.
        box_xywh: None computes it from the outline.
        rings: polygons as flat x, y, ... or [V, 2]; not yet validated.
        difficult: used for training, but not counted as missed.
        mask: an RLE instead of polygons, with the image size stated in the file.
        keypoints: float64 [P, 3].
        unit: length of each image side in the coordinates of box, rings and keypoints: 100 for percent, 1 for shares;
            0: they are in pixels.
    """

    class_name: str
    where: str
    box_xywh: Sequence[float] | None = None
    rings: list[Any] = field(default_factory=list)
    keypoints: npt.NDArray[np.float64] | None = None
    mask: RLE | None = None
    difficult: bool = False
    unit: float = 0.0

    def in_pixels(self, size_hw: HW) -> ShapeInstance:
        """This instance in pixels of an image of this height and width."""
        if not self.unit:
            return self
        x, y = size_hw[1] / self.unit, size_hw[0] / self.unit
        box, keypoints, scale = self.box_xywh, self.keypoints, np.array([x, y])
        return replace(
            self,
            unit=0.0,
            box_xywh=None if box is None else [box[0] * x, box[1] * y, box[2] * x, box[3] * y],
            rings=[np.asarray(ring, np.float64).reshape(-1, 2) * scale for ring in self.rings],
            keypoints=None if keypoints is None else keypoints * (x, y, 1),
        )


@dataclass
class ShapeAnnotation:
    """One image and the objects drawn on it.

    Attributes:
        image: the image file that the annotation refers to.
        where: file and position, the beginning of messages.
        size_hw: height and width that the file states; None if it states none.
        split: "train", "val", "test" or "".
        lost: class of each object that the reader left out, with a note; "" where the file states none.
        tags: of the whole image: name -> whether it is set. They are its labels if no image has shapes.
        fields: of the whole image: name of a label field -> its classes. They are its labels instead of ``tags``.
    """

    image: ImageReference
    where: str
    size_hw: HW | None = None
    split: str = ""
    instances: list[ShapeInstance] = field(default_factory=list)
    lost: list[str] = field(default_factory=list)
    tags: dict[str, bool] = field(default_factory=dict)
    fields: dict[str, tuple[str, ...]] = field(default_factory=dict)


@dataclass(frozen=True)
class ClassList:
    """Class list stored in the data set, in its order, with its category ids (1..K if there are none)."""

    names: tuple[str, ...]
    category_ids: tuple[int, ...] = ()


def shapes_table(
    annotations: Sequence[ShapeAnnotation],
    base: Path,
    images: str | os.PathLike[str] | None,
    *,
    source: str,
    notes: RepairLog,
    class_list: ClassList | None = None,
    classes: Sequence[str] | None = None,
    bad_instances: str = "drop",
    schema: KeypointSchema | None = None,
    follow_links: bool = False,
    missing_images: str = "error",
) -> AnnotationTable:
    """Find the images, read their headers, and build the table; one of class labels if there are tags and no shapes.

    Labelling tools and OpenCV show images upright, so coordinates are assumed to be upright unless the stated size
    matches only the stored pixels; where EXIF rotates an image and the size does not decide, that is noted.

    Args:
        annotations: the images in the order of the table.
        base: the data folder.
        images: image folder, if it is a different one.
        source: name of the data set in messages.
        notes: notes of the reader so far.
        class_list: the data set's class list; None uses the names that occur, sorted.
        classes: names that become labels 1, 2, ... in this order.
        bad_instances: "drop" or "error", see :class:`TableBuilder`.
        schema: keypoints of every instance.
        follow_links: search images behind links that point outside the folder.
        missing_images: "error" or "drop", see ``look_up_images``.

    Raises:
        DataError: input that cannot be used, with file and position.
    """
    if _has_only_tags(annotations, notes):
        return labels_table(
            _label_rows(annotations, notes), base, images, source=source, notes=notes, classes=classes,
            bad_instances=bad_instances, follow_links=follow_links, missing_images=missing_images,
        )  # fmt: skip
    class_map, class_names = _class_map(annotations, class_list, classes, source)
    references = [annotation.image for annotation in annotations]
    root, names = look_up_images(references, base, images, source, notes, follow_links, missing_images)
    numbers = [number for number, name in enumerate(names, 1) if name]
    annotations = [annotations[number - 1] for number in numbers]
    names = [names[number - 1] for number in numbers]
    _check_unique(annotations, names, source)
    headers = read_headers(root, names, source)
    builder = TableBuilder(class_map, root, source=source, bad_instances=bad_instances, keypoint_schema=schema)
    builder.notes.merge(notes)
    stored_frames = _stored_frames(annotations, names, headers, images, source, builder.notes)
    columns = zip(numbers, annotations, names, headers, stored_frames, strict=True)
    for number, annotation, name, header, stored_frame in columns:
        builder.add_image(
            name, header.size_hw, image_id=number, orientation=header.orientation, stored_frame=stored_frame,
            split=annotation.split,
        )  # fmt: skip
        frame = Frame(header.size_hw, header.orientation if stored_frame else 1)
        frame_hw = header.size_hw if stored_frame else upright_hw(header.size_hw, header.orientation)
        excluded = {lost for lost in annotation.lost if lost and classes is not None and lost not in class_map.names}
        builder.lose(sum(lost not in excluded for lost in annotation.lost))
        for instance in annotation.instances:
            if not _has_class(instance, class_names, bad_instances, builder.notes, source):
                builder.lose()
            elif instance.class_name not in class_map.names:
                builder.notes.add("instance of an unselected class left out", instance.where)
            else:
                _add_instance(builder, instance.in_pixels(frame_hw), name, class_map, frame, frame_hw)
    return builder.build()


def _add_instance(
    builder: TableBuilder, instance: ShapeInstance, image: str, class_map: ClassMap, frame: Frame, frame_hw: HW
) -> None:
    stated_box, outline = _box_and_outline(instance, frame_hw, builder.notes)
    box, segmentation, keypoints = frame.to_upright(
        None if stated_box is None else np.array(stated_box, np.float64), outline, instance.keypoints
    )
    builder.add_instance(
        None if box is None else box.tolist(),
        class_map.label_of(instance.class_name),
        segmentation=segmentation,
        keypoints=keypoints,
        difficult=instance.difficult,
        where=f"{instance.where} ({image})",
    )


def ellipse_rings(
    cx: float, cy: float, rx: float, ry: float, degrees: float, where: str, notes: RepairLog
) -> list[npt.NDArray[np.float64]]:
    """The outline of an ellipse as ``ShapeInstance.rings``; a negative radius is read as positive, noted."""
    if min(rx, ry) < 0:
        notes.add("negative radius read as positive", where)
    return [ellipse_ring(cx, cy, abs(rx), abs(ry), degrees)]


def _has_only_tags(annotations: Sequence[ShapeAnnotation], notes: RepairLog) -> bool:
    """Whether images have tags and none has a shape; else the tags are noted."""
    tagged = [annotation for annotation in annotations if annotation.fields or any(annotation.tags.values())]
    if not any(annotation.instances or annotation.lost for annotation in annotations):
        return bool(tagged)
    for annotation in tagged:
        notes.add("tags of an image ignored, because there are shapes", annotation.where)
    return False


def _label_rows(annotations: Sequence[ShapeAnnotation], notes: RepairLog) -> list[LabelRow]:
    """The labels of images without shapes."""
    if not any(annotation.fields for annotation in annotations):
        return tag_rows([(item.image, item.where, item.split, item.tags) for item in annotations], notes)
    for annotation in annotations:
        if any(annotation.tags.values()):
            notes.add("tag without a value left out, because other tags have values", annotation.where)
    return field_rows([(item.image, item.where, item.split, item.fields) for item in annotations], notes)


def ellipse_ring(cx: float, cy: float, rx: float, ry: float, degrees: float = 0.0) -> npt.NDArray[np.float64]:
    """[CORNERS, 2]: points on an ellipse, rotated clockwise (y points down) about its centre."""
    angle = np.arange(CORNERS) * (2 * np.pi / CORNERS)
    with np.errstate(over="ignore", invalid="ignore"):  # overflowing numbers become infinite and are rejected later
        rotation = np.deg2rad(degrees)
        x, y = rx * np.cos(angle), ry * np.sin(angle)
        cos, sin = np.cos(rotation), np.sin(rotation)
        return np.column_stack([cx + x * cos - y * sin, cy + x * sin + y * cos])


def _class_map(
    annotations: Sequence[ShapeAnnotation], class_list: ClassList | None, classes: Sequence[str] | None, source: str
) -> tuple[ClassMap, tuple[str, ...]]:
    """The selected classes, and the names of all classes."""
    if class_list is None:
        names = {instance.class_name for annotation in annotations for instance in annotation.instances} - {""}
        all_classes = ClassMap.from_names(sorted(names))
    else:
        all_classes = ClassMap(class_list.names, class_list.category_ids)
    return all_classes.select(classes, source), all_classes.names


def _has_class(
    instance: ShapeInstance, class_names: Sequence[str], bad_instances: str, notes: RepairLog, source: str
) -> bool:
    if not instance.class_name:
        if bad_instances == "error":
            raise DataError(
                f"{instance.where}: no class; add the class, remove the instance, or pass --bad-instances drop"
            )
        notes.add("instance without a class dropped", instance.where)
        return False
    if instance.class_name not in class_names:
        raise DataError(
            f"{instance.where}: class {instance.class_name!r} is not in the class list of {source} "
            f"({', '.join(class_names) or 'which is empty'}); add it there or correct it"
        )
    return True


def _check_unique(annotations: Sequence[ShapeAnnotation], names: Sequence[str], source: str) -> None:
    """DataError if an image has two records in one split. The doctor reports an image in several splits."""
    first_place: dict[tuple[str, str], str] = {}
    for annotation, name in zip(annotations, names, strict=True):
        first = first_place.setdefault((name, annotation.split), annotation.where)
        if first is not annotation.where:
            raise DataError(
                f"{source}: the image {name} is annotated in {first} and in {annotation.where}; keep one of them, or "
                "correct the image names"
            )


def _stored_frames(
    annotations: Sequence[ShapeAnnotation],
    names: Sequence[str],
    headers: Sequence[ImageHeader],
    images: str | os.PathLike[str] | None,
    source: str,
    notes: RepairLog,
) -> list[bool]:
    """For each image: whether its coordinates refer to the stored pixels."""
    stored_frames, mismatches = [], []
    for annotation, name, header in zip(annotations, names, headers, strict=True):
        stated_hw = annotation.size_hw
        upright = upright_hw(header.size_hw, header.orientation)
        stored_frames.append(stated_hw == header.size_hw != upright)
        if stated_hw is not None and stated_hw not in (upright, header.size_hw):
            (height, width), (file_height, file_width) = stated_hw, header.size_hw
            mismatches.append(f"{name} (annotated {width} x {height}, file {file_width} x {file_height})")
        elif header.orientation != 1 and (stated_hw is None or header.size_hw == upright):
            notes.add("image rotated by EXIF: coordinates are assumed to refer to the upright image", name)
    if mismatches:
        raise DataError(
            f"{source}: the size (width x height) of {len(mismatches)} of {len(names)} images differs from the "
            f"annotated size: {first_few(mismatches)}; {annotated_images(images)}, or scale the "
            "annotations and correct width and height"
        )
    return stored_frames


def _box_and_outline(
    instance: ShapeInstance, frame_hw: HW, notes: RepairLog
) -> tuple[Sequence[float] | None, Segmentation]:
    """Box (None: computed from the outline) and validated outline; rings of fewer than three points are left out."""
    if instance.mask is not None:
        if tuple(instance.mask["size"]) != frame_hw:
            raise DataError(
                f"{instance.where}: the mask has height and width {list(instance.mask['size'])}, the image "
                f"{list(frame_hw)}; create the mask again from this image"
            )
        return instance.box_xywh, instance.mask
    if not instance.rings:
        return instance.box_xywh, None
    flat = [np.asarray(ring, np.float64).ravel() for ring in instance.rings]
    rings = [ring for ring in flat if ring.size >= 6]
    if len(rings) < len(flat):
        notes.add("polygon ring with fewer than three points left out", instance.where)
    if rings:
        return instance.box_xywh, check_polygons(rings, frame_hw, instance.where)
    notes.add("instance left without a mask", instance.where)
    points = np.concatenate(flat)
    if instance.box_xywh is None and points.size:
        return extent_xywh(points[: points.size // 2 * 2]), None
    return instance.box_xywh, None
