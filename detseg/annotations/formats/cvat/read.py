"""Read CVAT XML (version 1.1, "for images" and "for video") into a table."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path
from xml.etree.ElementTree import Element

from detseg.annotations.formats.cvat.attributes import check_attribute, label_by_attribute
from detseg.annotations.formats.cvat.shapes import (
    SHAPES,
    attribute,
    parse_number,
    parse_whole_number,
    read_point_names,
    read_shape,
)
from detseg.annotations.formats.cvat.video import annotated_frames
from detseg.annotations.formats.format import Detected
from detseg.annotations.formats.shared.annotation_files import annotation_files, locate_annotation_files, summary_line
from detseg.annotations.formats.shared.problems import Problems
from detseg.annotations.formats.shared.shapes import ClassList, ShapeAnnotation, shapes_table
from detseg.annotations.formats.shared.xml_file import parse_xml
from detseg.annotations.image_lookup import ImageLookup, ImageReference
from detseg.annotations.listing import split_of
from detseg.annotations.repair_log import RepairLog
from detseg.annotations.table import AnnotationTable
from detseg.errors import DataError
from detseg.keypoints import keypoint_schema
from detseg.media.files import open_file
from detseg.media.video_files import split_frame

_HEAD = 2**16


def find_cvat(root: Path, files: list[str]) -> Detected | None:
    """One line to print, if the folder contains CVAT XML at the top level, in annotations/, or in train/, val/, test/:
    files with the root ``annotations`` that start with a version and ``meta`` or with images or tracks."""
    return summary_line("CVAT", annotation_files(root, files, ".xml", _is_cvat))


def read_cvat(
    data: str | os.PathLike[str],
    images: str | os.PathLike[str] | None = None,
    *,
    classes: Sequence[str] | None = None,
    class_attribute: str | None = None,
    bad_instances: str = "drop",
    split: str = "",
    follow_links: bool = False,
    missing_images: str = "error",
) -> AnnotationTable:
    """Read CVAT XML: boxes, polygons, ellipses (as polygons), masks, and skeletons (as keypoints).

    Classes are the labels of the file in its order; with ``class_attribute`` the values of this attribute, sorted. A
    rotated box becomes its axis-aligned bounding box, with a note. Points, lines and cuboids are left out with a note.
    Tags of images are their class labels if no image has shapes. ``subset`` is the split. Of a video, the images
    ``frame_000010.png`` in the folder are read, or else the video itself (see ``annotated_frames``): each frame with
    its shapes that are not ``outside``.

    Arguments and errors are those of :class:`detseg.annotations.formats.format.Reader`; ``data`` is the
    folder or the XML file. Splits are the subsets, or else those in the names of files and folders.
    """
    base, annotation_paths = locate_annotation_files(Path(data), split, ".xml", _is_cvat, follow_links)
    source = annotation_paths[0][0] if len(annotation_paths) == 1 else base.name
    notes = RepairLog()
    roots = [(file, file_split, parse_xml(base / file, file)) for file, file_split in annotation_paths]
    names: dict[str, None] = {}
    points: tuple[str, ...] = ()
    for file, _, root in roots:
        if root.tag != "annotations":
            raise DataError(
                f"{file}: the root is <{root.tag}>, expected <annotations> (CVAT); export CVAT for images 1.1"
            )
        names.update(dict.fromkeys(_labels(root)))
        points = read_point_names(root, points, file)
        if class_attribute is not None:
            label_by_attribute(root, class_attribute)
    if class_attribute is not None:
        check_attribute([root for _, _, root in roots], class_attribute, source)
        names = {}
    annotations: list[ShapeAnnotation] = []
    problems = Problems()
    for file, file_split, root in roots:
        parent = file.rpartition("/")[0]
        annotations.extend(
            _image(image, file, parent, file_split, split == "", points, notes, problems)
            for image in root.findall("image")
        )
        if root.find("track") is not None:
            folder = base if images is None else Path(images)
            annotations.extend(_frames(root, file, ImageLookup(folder, follow_links), file_split, points, notes))
    source = annotation_paths[0][0] if len(annotation_paths) == 1 else base.name
    problems.raise_all(source)
    return shapes_table(
        annotations,
        base,
        images,
        source=source,
        notes=notes,
        class_list=ClassList(tuple(names)) if names else None,
        classes=classes,
        bad_instances=bad_instances,
        follow_links=follow_links,
        missing_images=missing_images,
        schema=keypoint_schema(points) if points else None,
    )


def _is_cvat(path: Path) -> bool:
    with open_file(path) as file:
        head = file.read(_HEAD)
    start = rb"<annotations(?:\s[^>]*)?>(\s|<!--.*?-->|<version>[^<]*</version>)*<(meta|image|track)[\s/>]"
    return re.search(start, head) is not None


def _labels(root: Element) -> list[str]:
    """Names of the labels of the task, project or job in its order, without the points of skeletons."""
    labels = [label for block in root.findall("./meta//labels") for label in block.findall("label")]
    names = [(label.findtext("name") or "").strip() for label in labels if not (label.findtext("parent") or "").strip()]
    return [name for name in dict.fromkeys(names) if name]


def _image(
    image: Element,
    file: str,
    parent: str,
    file_split: str,
    by_subset: bool,
    points: tuple[str, ...],
    notes: RepairLog,
    problems: Problems,
) -> ShapeAnnotation:
    """The annotation of one <image> element of ``file`` in the folder ``parent``."""
    name = image.get("name", "")
    where = f"{file}, image {image.get('id', '?')} ({name})"
    size = None
    if image.get("height") and image.get("width"):
        size = parse_whole_number(image, "height", where), parse_whole_number(image, "width", where)
    subset = (image.get("subset") or "").strip()
    if by_subset and subset and not split_of(subset):
        notes.add("subset ignored: it is not train, val or test", f"{where}: {subset}")
    split = (split_of(subset) if by_subset else "") or file_split
    annotation = ShapeAnnotation(ImageReference(name, parent, subset), where, size, split)
    for number, shape in enumerate(image, 1):
        if shape.tag == "tag" and (label := (shape.get("label") or "").strip()):
            annotation.tags[label] = True
            continue
        with problems.collect():
            instance = read_shape(shape, f"{where}, shape {number}", size, points, notes)
            if instance is not None:
                annotation.instances.append(instance)
            elif shape.tag in SHAPES and shape.tag != "tag":
                annotation.lost.append(attribute(shape, "label").strip())
    return annotation


def _frames(
    root: Element, file: str, lookup: ImageLookup, file_split: str, points: tuple[str, ...], notes: RepairLog
) -> list[ShapeAnnotation]:
    """The frames of a video with the shapes of all tracks."""
    size_element = root.find("./meta//original_size")
    size = None
    if size_element is not None:
        where = f"{file}, original_size"
        size = parse_number(size_element.findtext("height"), where), parse_number(size_element.findtext("width"), where)
    images = {
        number: ShapeAnnotation(
            ImageReference(image),
            f"{file}, frame {number}",
            None if size is None else (int(size[0]), int(size[1])),
            file_split,
        )
        for number, image in annotated_frames(root, file, lookup, notes).items()
    }
    for track in root.findall("track"):
        for shape in track:
            if shape.tag not in SHAPES:
                continue
            where = f"{file}, track {track.get('id', '?')}"
            number = parse_whole_number(shape, "frame", where)
            if attribute(shape, "outside") == "1":
                continue
            if number not in images and images and split_frame(next(iter(images.values())).image.name) is not None:
                raise DataError(
                    f"{where}, frame {number}: it is not among the annotated frames {min(images)} to {max(images)} of "
                    "the video; use the video that was annotated, or correct start_frame and stop_frame"
                )
            if number not in images:
                notes.add("shape in a frame without an image left out", f"{where}, frame {number}")
                continue
            shape.set("label", shape.get("label", track.get("label", "")))
            instance = read_shape(shape, f"{where}, frame {number}", images[number].size_hw, points, notes)
            if instance is not None:
                images[number].instances.append(instance)
            elif shape.tag != "tag":
                images[number].lost.append(attribute(shape, "label").strip())
    return list(images.values())
