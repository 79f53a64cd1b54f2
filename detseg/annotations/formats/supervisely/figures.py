"""Convert the figures of Supervisely to shapes: rectangles, polygons with holes, bitmaps and keypoint graphs."""

from __future__ import annotations

import base64
import binascii
import zlib
from collections.abc import Sequence

import msgspec
import numpy as np

from detseg.annotations.formats.shared.foreground import foreground
from detseg.annotations.formats.shared.shapes import UNSUPPORTED_SHAPE, ShapeInstance
from detseg.annotations.formats.supervisely.meta import Meta
from detseg.annotations.instance_box import ROTATED_BOX, extent_xywh, landmark_box, rotated_box
from detseg.annotations.repair_log import RepairLog
from detseg.errors import DataError
from detseg.images import read_header
from detseg.label_images import decode_alpha, decode_label_png
from detseg.masks import check_polygons, rle_to_mask, segmentation_to_rle
from detseg.postprocess import crop_rle
from detseg.structures import RLE

MAX_UNPACKED = 2**26
"""Most bytes that the PNG of a bitmap is unpacked to."""

_AGAIN = "draw it again in Supervisely, or remove it"


class Points(msgspec.Struct):
    """Corners of a rectangle or vertices of a polygon, x and y; the holes of a polygon."""

    exterior: list[tuple[float, float]] = []
    interior: list[list[tuple[float, float]]] = []


class Bitmap(msgspec.Struct):
    """A mask: base64 of a zlib stream of a PNG, and the image's x and y of its top-left pixel."""

    data: str
    origin: tuple[float, float]


class Node(msgspec.Struct):
    """One keypoint."""

    loc: tuple[float, float]
    disabled: bool | None = False


class Figure(msgspec.Struct):
    """One object of an image."""

    classTitle: str | None = None
    classId: int | None = None
    geometryType: str | None = None
    points: Points | None = None
    bitmap: Bitmap | None = None
    nodes: dict[str, Node] | None = None
    angle: float | None = None

    def title(self, meta: Meta) -> str:
        """The class; "" for none."""
        return (self.classTitle or meta.titles.get(self.classId or -1, "")).strip()

    def kind(self, meta: Meta) -> str:
        """The shape: as stated, else that of the class, else what the content is."""
        stated = self.geometryType or meta.shapes.get(self.title(meta), "")
        if stated and stated != "any":
            return stated
        if self.bitmap is not None or self.nodes is not None:
            return "bitmap" if self.bitmap is not None else "graph"
        return "rectangle" if self.points is not None and len(self.points.exterior) == 2 else "polygon"


def instance_of(
    figure: Figure, meta: Meta, names: Sequence[str], size_hw: tuple[int, int], where: str, notes: RepairLog
) -> ShapeInstance | None:
    """The shape of one figure; None for one that is neither box, outline nor keypoints, which is noted.

    Args:
        names: of all keypoints of the data set.
        size_hw: height and width of the image.
        where: file and position.

    Raises:
        DataError: content that is missing, cannot be decoded, or is not inside the image.
    """
    kind = figure.kind(meta)
    instance = ShapeInstance(figure.title(meta), where)
    where = f"{where}: {kind}"
    if kind in ("rectangle", "oriented_bbox"):
        corners = figure.points.exterior if figure.points is not None else []
        if len(corners) != 2:
            raise DataError(f"{where} of {len(corners)} points, expected 2; {_AGAIN}")
        x, y, width, height = extent_xywh(corners)
        box = x, y, width + 1, height + 1  # the second corner is the last pixel of the rectangle
        if figure.angle:
            notes.add(ROTATED_BOX, where)
            box = rotated_box(box, float(np.rad2deg(figure.angle)))
        instance.box_xywh = box
    elif kind == "polygon":
        points = figure.points or Points()
        if points.interior:
            instance.mask = _with_holes(points, size_hw, where)
        else:
            instance.rings = [points.exterior]
    elif kind == "bitmap" and figure.bitmap is not None:
        instance.mask = _mask(figure.bitmap, size_hw, where, notes)
    elif kind == "graph" and figure.nodes is not None:
        _add_keypoints(instance, figure.nodes, meta, names, notes)
    else:
        notes.add(UNSUPPORTED_SHAPE, where)
        return None
    return instance


def node_names(figures: Sequence[Figure], meta: Meta) -> list[str]:
    """The names of all keypoints that occur: in the order of meta.json, then those that it does not define."""
    used = {meta.nodes.get(figure.title(meta), {}).get(key, key) for figure in figures for key in figure.nodes or {}}
    defined = dict.fromkeys(name for nodes in meta.nodes.values() for name in nodes.values() if name in used)
    return [*defined, *sorted(used - defined.keys())]


def _add_keypoints(
    instance: ShapeInstance, nodes: dict[str, Node], meta: Meta, names: Sequence[str], notes: RepairLog
) -> None:
    """Set the keypoints, and the box around them. Disabled ones are not labelled."""
    keypoints = np.zeros((len(names), 3))
    of_class = meta.nodes.get(instance.class_name, {})
    for key, node in nodes.items():
        if not node.disabled:
            keypoints[names.index(of_class.get(key, key))] = *node.loc, 2
    if (keypoints[:, 2] > 0).any():
        instance.keypoints = keypoints
        instance.box_xywh = landmark_box(keypoints, instance.where, notes)


def _with_holes(points: Points, size_hw: tuple[int, int], where: str) -> RLE:
    """The mask of a polygon without its holes; only the pixels of its box are rasterized."""
    exterior, *holes = check_polygons([points.exterior, *points.interior], size_hw, where)
    left, top = np.floor(exterior.min(axis=0)).astype(int).clip(0, np.array(size_hw[::-1]) - 1).tolist()
    right, bottom = np.ceil(exterior.max(axis=0)).astype(int).clip(1, size_hw[::-1]).tolist()
    crop_hw = max(bottom - top, 1), max(right - left, 1)
    masks = [rle_to_mask(segmentation_to_rle([ring - (left, top)], crop_hw)) for ring in (exterior, *holes)]
    mask = masks[0].astype(np.bool_)
    for hole in masks[1:]:
        mask &= hole == 0
    return crop_rle(mask, top, left, size_hw)


def _mask(bitmap: Bitmap, size_hw: tuple[int, int], where: str, notes: RepairLog) -> RLE:
    """The mask of a bitmap: the opaque pixels of a PNG with alpha, else all that are not 0."""
    try:
        unpacking = zlib.decompressobj()
        content = unpacking.decompress(base64.b64decode(bitmap.data, validate=True), MAX_UNPACKED)
    except (binascii.Error, ValueError, zlib.error):
        raise DataError(f"{where}: its data are not base64 of a zlib stream; {_AGAIN}") from None
    if unpacking.unconsumed_tail:
        raise DataError(f"{where}: its data unpack to more than {MAX_UNPACKED >> 20} MiB; {_AGAIN}")
    (height, width), (left, top) = read_header(content, name=where).size_hw, (round(value) for value in bitmap.origin)
    if left < 0 or top < 0 or top + height > size_hw[0] or left + width > size_hw[1]:
        raise DataError(
            f"{where} of {width} x {height} pixels at {left}, {top} extends beyond the image of {size_hw[1]} x "
            f"{size_hw[0]} (width x height); {_AGAIN}"
        )
    alpha = decode_alpha(content, name=where)
    crop = foreground(decode_label_png(content, name=where), where, notes) if alpha is None else alpha != 0
    return crop_rle(crop, top, left, size_hw)
