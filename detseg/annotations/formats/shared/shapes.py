"""What people drew on images, as the files of labelling tools say it, and the table of it."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from detseg.annotations.builder import TableBuilder
from detseg.annotations.formats.shared.image_lookup import Wanted, look_up_images
from detseg.annotations.frame import Frame
from detseg.annotations.image_files import first_few, read_headers
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
"""Corners of the polygon that stands for a circle or an ellipse: its area is 0.13 % smaller."""

LEFT_OUT = "shape that is neither box nor polygon left out"


MIN_SIDE = 8.0
"""Pixels: a box around landmarks is at least so wide and high. Finer than one cell of the finest feature map, an
object cannot be found; a box around a single landmark, or two at one height, would have no area at all."""

ONLY_CLASS = "object"
"""The class of all boxes of a file that names none."""


@dataclass
class ShapeInstance:
    """One object, in the coordinates of its file; numbers are finite or refused later.

    Attributes:
        class_name: "" where the file gives none.
        where: the beginning of messages.
        box_xywh: None takes it from the outline.
        rings: polygons as flat x, y, ... or [V, 2]; unchecked.
        difficult: trained on, but not counted as missed.
        mask: an RLE instead, of the size of the image in the file.
        keypoints: float64 [P, 3].
    """

    class_name: str
    where: str
    box_xywh: Sequence[float] | None = None
    rings: list[Any] = field(default_factory=list)
    keypoints: npt.NDArray[np.float64] | None = None
    mask: RLE | None = None
    difficult: bool = False


@dataclass
class ShapeAnnotation:
    """One image and what was drawn on it.

    Attributes:
        image: how to find it.
        where: the beginning of messages.
        size_hw: height and width that the file states; None if it states none.
        split: "train", "val", "test" or "".
    """

    image: Wanted
    where: str
    size_hw: HW | None = None
    split: str = ""
    instances: list[ShapeInstance] = field(default_factory=list)


@dataclass(frozen=True)
class ClassList:
    """Classes that the format lists itself, in its order, with its own ids (1..K if it has none)."""

    names: tuple[str, ...]
    category_ids: tuple[int, ...] = ()


def shapes_table(
    drawn: Sequence[ShapeAnnotation],
    base: Path,
    images: str | os.PathLike[str] | None,
    *,
    source: str,
    notes: RepairLog,
    listed: ClassList | None = None,
    classes: Sequence[str] | None = None,
    bad_instances: str = "drop",
    schema: KeypointSchema | None = None,
) -> AnnotationTable:
    """Find the images, read their headers, and build the table.

    Labelling tools and OpenCV show images upright, so coordinates are taken as upright ones unless the stated size
    is that of the stored pixels and of these only; where EXIF turns an image and no size tells, that is noted.

    Args:
        drawn: the images in the order of the table.
        base: the data folder.
        images: folder of the images if it is another.
        source: what messages call the data set.
        notes: of the reader so far.
        listed: the format's own class list; None takes the names that occur, sorted.
        classes: names that become labels 1, 2, ... in this order.
        bad_instances: "drop" or "error", see :class:`TableBuilder`.
        schema: keypoints of every instance.

    Raises:
        DataError: what cannot be used, with file and place.
    """
    class_map, known = _class_map(drawn, listed, classes, source)
    root, names = look_up_images([one.image for one in drawn], base, images, source, notes)
    _check_once(drawn, names, source)
    headers = read_headers(root, names, source)
    builder = TableBuilder(class_map, root, source=source, bad_instances=bad_instances, keypoint_schema=schema)
    builder.notes.merge(notes)
    stored_frames = _stored_frames(drawn, names, headers, source, builder.notes)
    for one, name, header, stored_frame in zip(drawn, names, headers, stored_frames, strict=True):
        builder.add_image(
            name, header.size_hw, orientation=header.orientation, stored_frame=stored_frame, split=one.split
        )
        frame = Frame(header.size_hw, header.orientation if stored_frame else 1)
        own_hw = header.size_hw if stored_frame else upright_hw(header.size_hw, header.orientation)
        for instance in one.instances:
            if not _has_class(instance, known, bad_instances, builder.notes, source):
                continue
            if instance.class_name not in class_map.names:
                builder.notes.add("instance of a class that was not selected left out", instance.where)
                continue
            given, outline = _outline(instance, own_hw, builder.notes)
            box, segmentation, keypoints = frame.upright(
                None if given is None else np.array(given, np.float64), outline, instance.keypoints
            )
            builder.add_instance(
                None if box is None else box.tolist(),
                class_map.label_of(instance.class_name),
                segmentation=segmentation,
                keypoints=keypoints,
                difficult=instance.difficult,
                where=f"{instance.where} ({name})",
            )
    return builder.build()


def ellipse_ring(cx: float, cy: float, rx: float, ry: float, degrees: float = 0.0) -> npt.NDArray[np.float64]:
    """[CORNERS, 2]: points on an ellipse, turned clockwise (y points down) about its centre."""
    angle = np.arange(CORNERS) * (2 * np.pi / CORNERS)
    with np.errstate(over="ignore", invalid="ignore"):  # absurd numbers become infinite and are refused later
        turn = np.deg2rad(degrees)
        x, y = rx * np.cos(angle), ry * np.sin(angle)
        return np.column_stack([cx + x * np.cos(turn) - y * np.sin(turn), cy + x * np.sin(turn) + y * np.cos(turn)])


def extent_xywh(points: npt.ArrayLike) -> list[float]:
    """The box around points [V, 2] (or flat), as x, y, width, height."""
    xy = np.asarray(points, np.float64).reshape(-1, 2)
    low, high = xy.min(axis=0), xy.max(axis=0)
    with np.errstate(over="ignore", invalid="ignore"):  # as above
        return [*low.tolist(), *(high - low).tolist()]


def landmark_box(points: npt.NDArray[np.float64], where: str, notes: RepairLog) -> list[float]:
    """x, y, width, height around the labelled of the points [P, 3] (at least one), widened to ``MIN_SIDE``, noted."""
    x, y, width, height = extent_xywh(points[points[:, 2] > 0, :2])
    if min(width, height) < MIN_SIDE:
        notes.add(f"box around landmarks widened to {MIN_SIDE:g} px", where)
    wide, high = max(width, MIN_SIDE), max(height, MIN_SIDE)
    return [x - (wide - width) / 2, y - (high - height) / 2, wide, high]


def _class_map(
    drawn: Sequence[ShapeAnnotation], listed: ClassList | None, classes: Sequence[str] | None, source: str
) -> tuple[ClassMap, tuple[str, ...]]:
    """The selected classes, and all that are known."""
    if listed is None:
        names = {instance.class_name for one in drawn for instance in one.instances} - {""}
        everything = ClassMap.from_names(sorted(names))
    else:
        everything = ClassMap(listed.names, listed.category_ids)
    return everything.select(classes, source), everything.names


def _has_class(
    instance: ShapeInstance, known: Sequence[str], bad_instances: str, notes: RepairLog, source: str
) -> bool:
    if not instance.class_name:
        if bad_instances == "error":
            raise DataError(f"{instance.where}: no class; name it, remove it, or pass --bad-instances drop")
        notes.add("instance without a class dropped", instance.where)
        return False
    if instance.class_name not in known:
        raise DataError(
            f"{instance.where}: class {instance.class_name!r} is not in the class list of {source} "
            f"({', '.join(known) or 'which is empty'}); add it there or correct it"
        )
    return True


def _check_once(drawn: Sequence[ShapeAnnotation], names: Sequence[str], source: str) -> None:
    """One image has one record, or one a split: then the doctor finds it."""
    seen: dict[tuple[str, str], str] = {}
    for one, name in zip(drawn, names, strict=True):
        first = seen.setdefault((name, one.split), one.where)
        if first is not one.where:
            raise DataError(
                f"{source}: the image {name} is annotated by {first} and by {one.where}; keep one of them, or "
                "give each the name of its own image"
            )


def _stored_frames(
    drawn: Sequence[ShapeAnnotation],
    names: Sequence[str],
    headers: Sequence[ImageHeader],
    source: str,
    notes: RepairLog,
) -> list[bool]:
    """Of each image: whether its coordinates are those of the stored pixels."""
    frames, misfits = [], []
    for one, name, header in zip(drawn, names, headers, strict=True):
        upright = upright_hw(header.size_hw, header.orientation)
        frames.append(one.size_hw == header.size_hw != upright)
        if one.size_hw is not None and one.size_hw not in (upright, header.size_hw):
            (height, width), (file_height, file_width) = one.size_hw, header.size_hw
            misfits.append(f"{name} (annotated {width} x {height}, file {file_width} x {file_height})")
        elif header.orientation != 1 and (one.size_hw is None or header.size_hw == upright):
            notes.add("image that EXIF turns: coordinates are taken as those of the upright image", name)
    if misfits:
        raise DataError(
            f"{source}: {len(misfits)} of {len(names)} images have another size (width x height) than annotated: "
            f"{first_few(misfits)}; give the images that were annotated (--images), or scale the annotations and "
            "correct width and height"
        )
    return frames


def _outline(instance: ShapeInstance, own_hw: HW, notes: RepairLog) -> tuple[Sequence[float] | None, Segmentation]:
    """Box (None: that of the outline) and checked outline; rings of fewer than three points are left out, noted."""
    if instance.mask is not None:
        if tuple(instance.mask["size"]) != own_hw:
            raise DataError(
                f"{instance.where}: a mask of height and width {list(instance.mask['size'])} in an image of "
                f"{list(own_hw)}; make the mask again from this image"
            )
        return instance.box_xywh, instance.mask
    if not instance.rings:
        return instance.box_xywh, None
    flat = [np.asarray(ring, np.float64).ravel() for ring in instance.rings]
    rings = [ring for ring in flat if ring.size >= 6]
    if len(rings) < len(flat):
        notes.add("polygon ring with fewer than three points left out", instance.where)
    if rings:
        return instance.box_xywh, check_polygons(rings, own_hw, instance.where)
    notes.add("instance left without a mask", instance.where)
    points = np.concatenate(flat)
    if instance.box_xywh is None and points.size:
        return extent_xywh(points[: points.size // 2 * 2]), None
    return instance.box_xywh or [0.0, 0.0, 0.0, 0.0], None
