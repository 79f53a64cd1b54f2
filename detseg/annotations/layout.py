"""Which kind of data set a folder holds, found by looking: names first, then the first keys of JSON files."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import msgspec

from detseg.annotations.formats.csv.boxes import find_csv_boxes
from detseg.annotations.formats.csv.csv_file import csv_kind
from detseg.annotations.formats.csv.labels import find_csv_labels
from detseg.annotations.formats.csv.landmarks import find_csv_landmarks
from detseg.annotations.formats.cvat.read import find_cvat
from detseg.annotations.formats.folders.read import class_folders, split_folders
from detseg.annotations.formats.labelme.read import find_labelme
from detseg.annotations.formats.masks.layout import MASK_FOLDERS, MaskFolders, find_mask_folders
from detseg.annotations.formats.shared.annotation_files import split_in
from detseg.annotations.formats.via.read import find_via
from detseg.annotations.formats.voc.read import find_voc
from detseg.annotations.formats.yolo.read import find_yolo
from detseg.annotations.groups import first_names
from detseg.annotations.listing import IMAGE_FOLDERS, is_image, list_files, split_of, subfolders
from detseg.errors import DataError

FORMATS = ("coco", "voc", "yolo", "cvat", "labelme", "via", "csv", "masks", "folders")
"""In the order in which they are looked for."""

DEPTH = 3
"""Folders that hold nothing but one folder are stepped into, so many of them."""

ACCEPTED = """accepted are
  coco:    a COCO .json file, or a folder with such files in it, in annotations/ or in train/, val/, test/
  voc:     Pascal VOC .xml files, in Annotations/ or beside their images
  yolo:    data.yaml, or labels/ with a .txt for each image in images/
  cvat:    CVAT's .xml ("CVAT for images")
  labelme: LabelMe's .json or .xml for each image
  via:     a VGG Image Annotator .json
  csv:     path,x1,y1,x2,y2,label or path,label,... or path and x, y of landmarks
  masks:   images/ with masks/ beside it (or images in the folder itself), PNG masks named like their image
  folders: <class>/<image>, or train/<class>/<image> and val/<class>/<image>, of two classes or more
pass --format to say which it is, and --images if the images are elsewhere"""


_FINDERS: tuple[tuple[str, str, Callable[[Path, list[str]], str | None]], ...] = (
    ("voc", "", find_voc),
    ("yolo", "", find_yolo),
    ("cvat", "", find_cvat),
    ("labelme", "", find_labelme),
    ("via", "", find_via),
    ("csv", "boxes", find_csv_boxes),
    ("csv", "landmarks", find_csv_landmarks),
    ("csv", "labels", find_csv_labels),
)
"""(format, kind, finder), looked for in this order, after COCO and before folders of masks and of classes."""

_OF_SUFFIX = {".csv": "csv", ".yaml": "yolo", ".yml": "yolo", ".xml": "cvat"}
"""What a single annotation file is."""


@dataclass(frozen=True)
class Layout:
    """What a data folder holds.

    Attributes:
        format: one of ``FORMATS``.
        explanation: one line for humans: what was found, and where.
        root: the folder that all names are relative to: the one that was given, or the only one inside it.
        file: the one annotation file that was named as the data; "" for a folder.
        kind: what CSV lists hold: "boxes", "landmarks" or "labels"; boxes if nothing says it, because their reader's
            errors say the most.
        annotation_files: COCO files and the part ("train", "val", "test", "") that each is.
        mask_folders: images and their masks.
    """

    format: str
    explanation: str
    root: Path
    file: str = ""
    kind: str = ""
    annotation_files: tuple[tuple[str, str], ...] = ()
    mask_folders: tuple[MaskFolders, ...] = ()


class _Head(msgspec.Struct):
    """The keys that make a COCO file; their values are not parsed here."""

    images: msgspec.Raw
    annotations: msgspec.Raw


def find_format(data: str | Path, format: str | None = None) -> Layout:
    """Look at a folder, or at an annotation file, and say what it is.

    Args:
        data: the folder or file.
        format: look for this one only.

    Raises:
        DataError: nothing that can be read (says what was seen), several annotation files of the same part, or a link
            that leads out of the folder.
        OSError: no such folder or file.
    """
    if format is not None and format not in FORMATS:
        raise DataError(f"format {format!r} is not known; choose {', '.join(FORMATS)}")
    data = Path(data)
    if data.is_file():
        return _of_file(data, format)
    if not data.is_dir():
        raise FileNotFoundError(f"{data}: no such file or folder")
    root, files = data, list_files(data)
    for _ in range(DEPTH):
        layout = _look(root, files, format)
        if layout is not None:
            return layout
        folders = subfolders(files)
        if len(folders.keys() - {""}) != 1 or any(map(is_image, folders.get("", []))):
            break
        name = next(iter(folders.keys() - {""}))
        root, files = root / name, folders[name]
    raise DataError(f"{data}: no {format or 'known'} data set was found; it holds {_seen(data)}; {ACCEPTED}")


def _of_file(path: Path, format: str | None) -> Layout:
    """What a single annotation file is, by its suffix, and a .json file by its first keys."""
    suffix = path.suffix.lower()
    found = _OF_SUFFIX.get(suffix, "")
    if suffix == ".json":
        found = "via" if format == "via" or (format is None and find_via(path.parent, [path.name])) else "coco"
    if not found or format not in (None, found):
        raise DataError(f"{path}: a file must be a {format or 'known'} annotation file; {ACCEPTED}")
    if found == "coco":
        return Layout("coco", f"COCO file {path.name}", path.parent, annotation_files=((path.name, ""),))
    kind = (csv_kind(path) or "boxes") if found == "csv" else ""
    return Layout(found, f"{found} file {path.name}", path.parent, path.name, kind)


def _look(root: Path, files: list[str], format: str | None) -> Layout | None:
    if format in (None, "coco"):
        annotation_files = _coco_files(root, files)
        if annotation_files:
            what = ", ".join(f"{name} ({split})" if split else name for name, split in annotation_files)
            return Layout("coco", f"COCO: {what}", root, annotation_files=annotation_files)
    for name, kind, find in _FINDERS:
        explanation = find(root, files) if format in (None, name) else None
        if explanation is not None:
            return Layout(name, explanation, root, kind=kind)
    if format in (None, "masks"):
        folders = tuple(find_mask_folders(files))
        if folders:
            what = ", ".join(f"images in {pair.images or '.'}, masks in {pair.masks or '.'}" for pair in folders)
            return Layout("masks", f"mask folder: {what}", root, mask_folders=folders)
    if format in (None, "folders"):
        classes = class_folders(files)
        if classes and (format == "folders" or _surely_classes(files, classes)):
            splits = sorted(set(split_folders(files).values()))
            below = f" in {', '.join(splits)}" if splits else ""
            return Layout("folders", f"image folder: {len(classes)} classes{below} ({first_names(classes)})", root)
    return None


def _surely_classes(files: list[str], classes: list[str]) -> bool:
    """Any folder of images looks like a single class; images/ and masks/ that do not match, and folders beside many
    loose images, are no classes."""
    loose = sum(is_image(file) for file in files if "/" not in file)
    usual = {name.lower() for name in classes} <= {*IMAGE_FOLDERS, *MASK_FOLDERS}
    return len(classes) > 1 and not usual and 2 * loose < sum(map(is_image, files))


def _coco_files(root: Path, files: list[str]) -> tuple[tuple[str, str], ...]:
    """COCO files of a folder and their parts, train before val before test.

    They lie in the folder, in annotations/, or in a folder of a part; of several for one part, the one whose name
    begins with "instances" is taken (captions and keypoints of the same images lie beside it in COCO's own download).
    """
    by_split: dict[str, list[str]] = {}
    for file in files:
        path = PurePosixPath(file)
        place = path.parent.name
        depth = len(path.parts) - 1
        if (
            path.suffix.lower() != ".json"
            or depth > 1
            or not (depth == 0 or place.lower() in ("annotations", "annotation", "labels") or split_of(place))
        ):
            continue
        if _is_coco(root / file):
            by_split.setdefault(split_in(path.stem) or split_of(place), []).append(file)
    found = {}
    for split, same in by_split.items():
        instances = [file for file in same if PurePosixPath(file).name.lower().startswith("instances")]
        chosen = instances if len(instances) == 1 else same
        if len(chosen) > 1:
            part = f"for {split} " if split else ""
            raise DataError(
                f"{root}: several annotation files {part}({first_names(chosen)}); name one of them as the data, or "
                "tell parts apart by train, val or test in the file names"
            )
        found[split] = chosen[0]
    if len(found) > 1 and "" in found:
        raise DataError(
            f"{root}: several annotation files ({first_names(sorted(found.values()))}), and {found['']} does not say "
            "which part it is; name one of them as the data, or call it train, val or test"
        )
    return tuple((found[split], split) for split in ("train", "val", "test", "") if split in found)


def _is_coco(path: Path) -> bool:
    """Whether a JSON file is an object with images and annotations: results are a list, configs have other keys.

    A file that breaks off after such keys is one, too: its reader says where.
    """
    with path.open("rb") as file:
        head = file.read(512).removeprefix(b"\xef\xbb\xbf").lstrip()
        if not head.startswith(b"{"):
            return False
        file.seek(0)
        text = file.read().removeprefix(b"\xef\xbb\xbf")
    try:
        msgspec.json.decode(text, type=_Head)
    except msgspec.ValidationError:
        return False
    except msgspec.DecodeError:
        return b'"images"' in text and b'"annotations"' in text
    return True


def _seen(root: Path) -> str:
    """What lies in a folder, for a message: kinds of files, and folders."""
    files = list_files(root)
    kinds = Counter(PurePosixPath(file).suffix.lower() or "no suffix" for file in files)
    counts = ", ".join(f"{count} x {kind}" for kind, count in kinds.most_common(5)) or "no files"
    folders = sorted(subfolders(files).keys() - {""})
    return counts + (f" in the folders {first_names(folders)}" if folders else "")
