"""CVAT's XML (version 1.1, "for images" and "for video") to a table."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path
from xml.etree.ElementTree import Element

from detseg.annotations.formats.cvat.shapes import SHAPES, attribute, number_of, point_names, read_shape, whole_of
from detseg.annotations.formats.shared.annotation_files import annotation_files, files_of, summary
from detseg.annotations.formats.shared.image_lookup import ImageLookup, Wanted
from detseg.annotations.formats.shared.shapes import ClassList, ShapeAnnotation, shapes_table
from detseg.annotations.formats.shared.xml_file import parse_xml
from detseg.annotations.listing import split_of
from detseg.annotations.repair_log import RepairLog
from detseg.annotations.table import AnnotationTable
from detseg.errors import DataError
from detseg.keypoints import keypoint_schema

_HEAD = 2**16


def find_cvat(root: Path, files: list[str]) -> str | None:
    """What is found, if the folder holds CVAT's XML at the top, in annotations/, or in train/, val/, test/: files with
    the root ``annotations`` that begin with a version and ``meta`` or with images or tracks."""
    return summary("CVAT", annotation_files(root, files, ".xml", _is_cvat))


def read_cvat(
    data: str | os.PathLike[str],
    images: str | os.PathLike[str] | None = None,
    *,
    classes: Sequence[str] | None = None,
    bad_instances: str = "drop",
    split: str = "",
) -> AnnotationTable:
    """Read CVAT's XML: boxes, polygons, ellipses (as polygons), masks, and skeletons (as keypoints).

    Labels are those of the file in its order. A turned box becomes the upright box around it, noted. Points, lines,
    cuboids and tags are left out with a note. ``subset`` is the split. Of a video, the images
    ``frame_000010.png`` that lie in the folder are read, each with the shapes of its frame that are not ``outside``.

    Args:
        data: the folder, or the XML file.
        images: folder of the images if they are not beside or below the file.
        classes: names that become labels 1, 2, ... in this order; instances of others are left out with a note.
        bad_instances: "drop" or "error", see :class:`TableBuilder`.
        split: what the split column says; "" lets the subsets say it, or else the names of files and folders.

    Raises:
        DataError: what cannot be used, with file, image, shape and remedy; a video without images of its frames.
        OSError: a file or folder is missing.
    """
    base, found = files_of(Path(data), split, ".xml", _is_cvat)
    notes = RepairLog()
    roots = [(file, part, parse_xml(base / file, file)) for file, part in found]
    names: dict[str, None] = {}
    points: tuple[str, ...] = ()
    for file, _, root in roots:
        if root.tag != "annotations":
            raise DataError(f"{file}: the root is <{root.tag}>, CVAT's is <annotations>; export CVAT for images 1.1")
        names.update(dict.fromkeys(_labels(root)))
        points = point_names(root, points, file)
    drawn: list[ShapeAnnotation] = []
    for file, part, root in roots:
        near = file.rpartition("/")[0]
        drawn.extend(_image(image, file, near, part, split == "", points, notes) for image in root.findall("image"))
        if root.find("track") is not None:
            folder = base if images is None else Path(images)
            drawn.extend(_frames(root, file, folder, part, points, notes))
    return shapes_table(
        drawn,
        base,
        images,
        source=found[0][0] if len(found) == 1 else base.name,
        notes=notes,
        listed=ClassList(tuple(names)) if names else None,
        classes=classes,
        bad_instances=bad_instances,
        schema=keypoint_schema(points) if points else None,
    )


def _is_cvat(path: Path) -> bool:
    with path.open("rb") as file:
        head = file.read(_HEAD)
    start = rb"<annotations>(\s|<!--.*?-->|<version>[^<]*</version>)*<(meta|image|track)[\s>]"
    return re.search(start, head) is not None


def _labels(root: Element) -> list[str]:
    """Names of the labels of the task, project or job in its order, without the points of skeletons."""
    found = [label for block in root.findall("./meta//labels") for label in block.findall("label")]
    names = [(label.findtext("name") or "").strip() for label in found if not (label.findtext("parent") or "").strip()]
    return [name for name in dict.fromkeys(names) if name]


def _image(
    image: Element, file: str, near: str, part: str, by_subset: bool, points: tuple[str, ...], notes: RepairLog
) -> ShapeAnnotation:
    name = image.get("name", "")
    where = f"{file}, image {image.get('id', '?')} ({name})"
    size = None
    if image.get("height") and image.get("width"):
        size = whole_of(image, "height", where), whole_of(image, "width", where)
    subset = (image.get("subset") or "").strip()
    if by_subset and subset and not split_of(subset):
        notes.add("subset that is not train, val or test not used", f"{where}: {subset}")
    split = (split_of(subset) if by_subset else "") or part
    made = ShapeAnnotation(Wanted(name, near, subset), where, size, split)
    for number, shape in enumerate(image, 1):
        instance = read_shape(shape, f"{where}, shape {number}", size, points, notes)
        if instance is not None:
            made.instances.append(instance)
    return made


def _frames(
    root: Element, file: str, folder: Path, part: str, points: tuple[str, ...], notes: RepairLog
) -> list[ShapeAnnotation]:
    """The images of a video's frames, found by their number, and the shapes of all tracks on them."""
    by_number: dict[int, str] = {}
    for image in ImageLookup(folder).files:
        if match := re.search(r"(?:^|[_\-/])0*(\d{1,9})\.[a-zA-Z]+$", image):
            other = by_number.setdefault(int(match[1]), image)
            if other != image:
                raise DataError(f"{file}: {other} and {image} are both frame {match[1]}; keep one of them")
    size_of = root.find("./meta//original_size")
    size = None
    if size_of is not None:
        where = f"{file}, original_size"
        size = number_of(size_of.findtext("height"), where), number_of(size_of.findtext("width"), where)
    images = {
        number: ShapeAnnotation(
            Wanted(image), f"{file}, frame {number}", None if size is None else (int(size[0]), int(size[1])), part
        )
        for number, image in sorted(by_number.items())
    }
    for track in root.findall("track"):
        for shape in track:
            if shape.tag not in SHAPES:
                continue
            where = f"{file}, track {track.get('id', '?')}"
            number = whole_of(shape, "frame", where)
            if attribute(shape, "outside") == "1":
                continue
            if number not in images:
                notes.add("shape of a frame without an image left out", f"{where}, frame {number}")
                continue
            shape.set("label", track.get("label", ""))
            instance = read_shape(shape, f"{where}, frame {number}", images[number].size_hw, points, notes)
            if instance is not None:
                images[number].instances.append(instance)
    if not images:
        raise DataError(
            f"{file}: the annotations of a video, but no images of its frames (frame_000000.png, ...) in {folder}; "
            "export with images from CVAT, or take the frames out of the video"
        )
    return list(images.values())
