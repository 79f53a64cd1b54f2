"""Convert a project of VIA 3 (images, audio and video) to the images and regions of VIA 2."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from detseg.annotations.formats.shared.problems import Problems
from detseg.annotations.formats.via.entries import Entry, Region, Shape, ViaFile
from detseg.annotations.instance_box import extent_xywh
from detseg.annotations.repair_log import RepairLog
from detseg.errors import DataError

KEYS = ("project", "attribute", "file", "view", "metadata")
"""The top-level keys of a project; ``config`` is not needed."""

_IMAGE = 2
_MEDIA = {4: "video", 8: "audio file"}
_CHECKBOX, _WITH_OPTIONS = 2, (2, 3, 4, 5)  # checkbox, radio, select, image
_REMOTE = (2, 3)  # a file at a URL, http: or file:
_INLINE = 4


class _Attribute(msgspec.Struct):
    aname: str = ""
    type: int = 1
    options: dict[str, Any] | None = None
    default_option_id: str | int | None = ""


class _File(msgspec.Struct):
    fname: str = ""
    type: int = _IMAGE
    loc: int = 1
    src: str = ""


class _View(msgspec.Struct):
    fid_list: list[str | int] = []


class _Metadata(msgspec.Struct):
    """A region (``xy``), a part of a video (``z``), or the attributes of a whole file (neither)."""

    vid: str | int
    z: list[float] = []
    xy: list[float] = []
    av: dict[str, Any] | None = None


class Project(msgspec.Struct):
    """A project file."""

    file: dict[str, _File]
    view: dict[str, _View]
    metadata: dict[str, _Metadata]
    attribute: dict[str, _Attribute] = {}


def converted(project: Project, file: str, notes: RepairLog) -> ViaFile:
    """The images of a project with their regions, in the order of its views.

    Videos, audio files, views of several files, and segments of time are left out with a note.

    Args:
        file: its name in messages.

    Raises:
        DataError: there are no images; all regions whose numbers do not fit their shape.
    """
    entries: dict[str, Entry] = {}
    for vid, view in project.view.items():
        names = [_name(project.file[str(fid)]) for fid in view.fid_list if str(fid) in project.file]
        media = {project.file[str(fid)].type for fid in view.fid_list if str(fid) in project.file}
        if len(names) != 1 or media != {_IMAGE}:
            kind = "view without a file" if not names else "view of several files" if len(names) > 1 else ""
            notes.add(f"{kind or _MEDIA.get(min(media), 'file of another kind')} left out", f"{file}, view {vid}")
            continue
        entries[vid] = Entry(names[0], {}, {})
    if not entries:
        raise DataError(
            f"{file}: a VIA 3 project without images (videos and audio files are not read); extract the frames of the "
            "video and annotate them, or export another project"
        )
    problems = Problems()
    for key, metadata in project.metadata.items():
        entry = entries.get(str(metadata.vid))
        where = f"{file}, metadata {key}"
        if entry is None:
            notes.add("annotation of a view that is not read left out", where)
            continue
        values = _values(metadata.av or {}, project.attribute)
        if not metadata.xy and not metadata.z:
            entry.file_attributes.update(values)
        elif not metadata.xy:
            notes.add("segment of time left out", where)
        else:
            with problems.collect():
                assert isinstance(entry.regions, dict)
                entry.regions[key] = Region(_shape(metadata.xy, f"{where} ({entry.filename})"), values)
    problems.raise_all(file)
    return ViaFile(list(entries.values()), {item.aname: _definition(item) for item in project.attribute.values()})


def _name(file: _File) -> str:
    """The name of an image: that of the file, or the URL where it is."""
    is_url = file.loc in _REMOTE and file.src
    return file.src if is_url or (not file.fname and file.loc != _INLINE) else file.fname


def _values(av: dict[str, Any], attributes: dict[str, _Attribute]) -> dict[str, Any]:
    """Name -> value of each attribute, with the texts of options in place of their ids; as VIA 2 stores them."""
    values: dict[str, Any] = {}
    for aid, value in av.items():
        attribute = attributes.get(aid, _Attribute(aname=aid))
        name, options = attribute.aname or aid, attribute.options or {}
        if attribute.type == _CHECKBOX:
            chosen = [part for part in str(value).split(",") if part]
            values[name] = {str(options.get(part, part)): True for part in chosen}
        else:
            values[name] = str(options.get(str(value), value)) if attribute.type in _WITH_OPTIONS else value
    return values


def _definition(attribute: _Attribute) -> dict[str, Any]:
    """The definition of an attribute, as VIA 2 stores it."""
    options = {str(text): "" for text in (attribute.options or {}).values()}
    default = (attribute.options or {}).get(str(attribute.default_option_id or ""))
    return {"options": options, "default_options": {} if default is None else {str(default): True}}


def _shape(xy: Sequence[float], where: str) -> Shape:
    """The shape of a region: its number in VIA 3, then its coordinates.

    Raises:
        DataError: an unknown shape, or a wrong number of coordinates.
    """
    kind, numbers = xy[0], list(xy[1:])
    names = {1: "point", 2: "rect", 3: "circle", 4: "ellipse", 5: "line", 6: "polyline", 7: "polygon"}
    expected = {2: (4,), 3: (3,), 4: (4, 5), 8: (8,), 9: (6,)}.get(int(kind), ())
    if (expected and len(numbers) not in expected) or (len(numbers) % 2 and kind == 7):
        raise DataError(
            f"{where}: {len(numbers)} coordinates of shape {kind:g}, expected {expected[0] if expected else 'pairs'}; "
            "draw the region again"
        )
    if kind == 2:
        x, y, width, height = numbers
        return Shape("rect", x=x, y=y, width=width, height=height)
    if kind == 3:
        return Shape("circle", cx=numbers[0], cy=numbers[1], r=numbers[2])
    if kind == 4:
        theta = numbers[4] if len(numbers) > 4 else None
        return Shape("ellipse", cx=numbers[0], cy=numbers[1], rx=numbers[2], ry=numbers[3], theta=theta)
    if kind == 7:
        return Shape("polygon", all_points_x=numbers[::2], all_points_y=numbers[1::2])
    if kind == 8:  # four points on the sides of a rectangle
        x, y, width, height = extent_xywh(numbers)
        return Shape("rect", x=x, y=y, width=width, height=height)
    if kind == 9:
        cx, cy, r = _circle(numbers, where)
        return Shape("circle", cx=cx, cy=cy, r=r)
    return Shape(names.get(int(kind), f"shape {kind:g}"))


def _circle(numbers: Sequence[float], where: str) -> tuple[float, float, float]:
    """Centre and radius of the circle through three points."""
    ax, ay, bx, by, cx, cy = numbers
    bx, by, cx, cy = bx - ax, by - ay, cx - ax, cy - ay
    double_area = 2 * (bx * cy - by * cx)
    if not double_area:
        raise DataError(f"{where}: the three points of the circle are on one line; draw it again")
    b, c = bx * bx + by * by, cx * cx + cy * cy
    x, y = (cy * b - by * c) / double_area, (bx * c - cx * b) / double_area
    return ax + x, ay + y, float((x * x + y * y) ** 0.5)
