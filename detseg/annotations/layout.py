"""Detect the format of a data set: by file names first, then by the top-level keys of JSON files."""

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
from detseg.annotations.formats.shared.annotation_files import split_in_name
from detseg.annotations.formats.via.read import find_via
from detseg.annotations.formats.voc.read import find_voc
from detseg.annotations.formats.yolo.read import find_yolo
from detseg.annotations.groups import first_names
from detseg.annotations.listing import IMAGE_FOLDERS, is_image, list_files, split_of, subfolders
from detseg.annotations.not_a_data_set import check_path, folder_without_annotations
from detseg.errors import DataError

FORMATS = ("coco", "voc", "yolo", "cvat", "labelme", "via", "csv", "masks", "folders")
"""All formats, in detection order."""

DEPTH = 3
"""Folder levels that are searched: a folder that contains only one folder is descended into."""

ACCEPTED = """accepted formats:
  coco:    a COCO .json file, or a folder with such files directly in it, in annotations/ or in train/, val/, test/
  voc:     Pascal VOC .xml files, in Annotations/ or beside their images
  yolo:    data.yaml, or labels/ with a .txt for each image in images/
  cvat:    CVAT's .xml ("CVAT for images")
  labelme: LabelMe's .json or .xml for each image
  via:     a VGG Image Annotator .json
  csv:     path,x1,y1,x2,y2,label or path,label,... or path and x, y of landmarks
  masks:   images/ with masks/ beside it (or images in the folder itself), PNG masks named like their image
  folders: <class>/<image>, or train/<class>/<image> and val/<class>/<image>, with two or more classes
pass --format to select the format, and --images if the images are in another folder"""


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
"""(format, kind, finder), in detection order, after COCO and before mask folders and class folders."""

_FORMAT_OF_SUFFIX = {".csv": "csv", ".yaml": "yolo", ".yml": "yolo", ".xml": "cvat"}
"""Suffix of a single annotation file -> format."""


@dataclass(frozen=True)
class Layout:
    """The format and contents of a data folder.

    Attributes:
        format: one of ``FORMATS``.
        explanation: one line for messages: what was detected, and where.
        root: the folder that all names are relative to: the data folder, or the only folder inside it.
        file: the annotation file if the data is a single file; "" for a folder.
        kind: contents of CSV files: "boxes", "landmarks" or "labels"; "boxes" if it is undetermined, because the errors
            of that reader are the most specific.
        annotation_files: COCO files and the split ("train", "val", "test", "") of each.
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
    """The required keys of a COCO file; their values are not parsed here."""

    images: msgspec.Raw
    annotations: msgspec.Raw


def find_format(data: str | Path, format: str | None = None) -> Layout:
    """Detect the format of a folder or an annotation file.

    Args:
        data: the folder or file.
        format: detect only this format.

    Raises:
        DataError: no known format (lists what the folder contains), an archive, an image, several annotation files of
            the same split, or a link that points outside the folder.
        OSError: no such folder or file, or a URL.
    """
    if format is not None and format not in FORMATS:
        raise DataError(f"format {format!r} is not known; choose {', '.join(FORMATS)}")
    data = Path(data)
    check_path(data)
    if data.is_file():
        return _file_layout(data, format)
    root, files = data, list_files(data)
    for _ in range(DEPTH):
        layout = _folder_layout(root, files, format)
        if layout is not None:
            return layout
        folders = subfolders(files)
        if len(folders.keys() - {""}) != 1 or any(map(is_image, folders.get("", []))):
            break
        name = next(iter(folders.keys() - {""}))
        root, files = root / name, folders[name]
    reason = folder_without_annotations(data, list_files(data), (format,) if format else FORMATS)
    reason = reason or f"it contains {_folder_contents(data)}; {ACCEPTED}"
    raise DataError(f"{data}: no {format or 'known'} data set was found; {reason}")


def _file_layout(path: Path, format: str | None) -> Layout:
    """Detect the format of a single annotation file by its suffix, and of a .json file by its keys."""
    suffix = path.suffix.lower()
    name = _FORMAT_OF_SUFFIX.get(suffix, "")
    if suffix == ".json":
        name = "via" if format == "via" or (format is None and find_via(path.parent, [path.name])) else "coco"
    if not name or format not in (None, name):
        raise DataError(f"{path}: a file must be a {format or 'known'} annotation file; {ACCEPTED}")
    if name == "coco":
        return Layout("coco", f"COCO file {path.name}", path.parent, annotation_files=((path.name, ""),))
    kind = (csv_kind(path) or "boxes") if name == "csv" else ""
    return Layout(name, f"{name} file {path.name}", path.parent, path.name, kind)


def _folder_layout(root: Path, files: list[str], format: str | None) -> Layout | None:
    """Detect the format of a folder; None if it has no known format."""
    if format in (None, "coco"):
        annotation_files = _coco_files(root, files)
        if annotation_files:
            names = ", ".join(f"{name} ({split})" if split else name for name, split in annotation_files)
            return Layout("coco", f"COCO: {names}", root, annotation_files=annotation_files)
    for name, kind, find in _FINDERS:
        explanation = find(root, files) if format in (None, name) else None
        if explanation is not None:
            return Layout(name, explanation, root, kind=kind)
    if format in (None, "masks"):
        folders = tuple(find_mask_folders(files))
        if folders:
            pairs = ", ".join(f"images in {pair.images or '.'}, masks in {pair.masks or '.'}" for pair in folders)
            return Layout("masks", f"mask folder: {pairs}", root, mask_folders=folders)
    if format in (None, "folders"):
        classes = class_folders(files)
        if classes and (format == "folders" or _are_class_folders(files, classes)):
            splits = sorted(set(split_folders(files).values()))
            below = f" in {', '.join(splits)}" if splits else ""
            return Layout("folders", f"image folder: {len(classes)} classes{below} ({first_names(classes)})", root)
    return None


def _are_class_folders(files: list[str], classes: list[str]) -> bool:
    """Exclude folders that only look like classes: a single folder of images, images/ and masks/ that do not match, and
    folders next to many images without a folder."""
    without_folder = sum(is_image(file) for file in files if "/" not in file)
    generic_names = {name.lower() for name in classes} <= {*IMAGE_FOLDERS, *MASK_FOLDERS}
    return len(classes) > 1 and not generic_names and 2 * without_folder < sum(map(is_image, files))


def _coco_files(root: Path, files: list[str]) -> tuple[tuple[str, str], ...]:
    """Find the COCO files of a folder and their splits, in the order train, val, test.

    They are in the folder, in annotations/, or in a folder per split; if a split has several, the one whose name begins
    with "instances" is used (COCO's own download has captions and keypoints of the same images in the same folder).
    """
    by_split: dict[str, list[str]] = {}
    for file in files:
        path = PurePosixPath(file)
        parent = path.parent.name
        depth = len(path.parts) - 1
        if (
            path.suffix.lower() != ".json"
            or depth > 1
            or not (depth == 0 or parent.lower() in ("annotations", "annotation", "labels") or split_of(parent))
        ):
            continue
        if _is_coco(root / file):
            by_split.setdefault(split_in_name(path.stem) or split_of(parent), []).append(file)
    file_of = {}
    for split, same in by_split.items():
        instances = [file for file in same if PurePosixPath(file).name.lower().startswith("instances")]
        chosen = instances if len(instances) == 1 else same
        if len(chosen) > 1:
            scope = f"for {split} " if split else ""
            raise DataError(
                f"{root}: several annotation files {scope}({first_names(chosen)}); pass one of them as the data, or "
                "put train, val or test into the file names"
            )
        file_of[split] = chosen[0]
    if len(file_of) > 1 and "" in file_of:
        raise DataError(
            f"{root}: several annotation files ({first_names(sorted(file_of.values()))}), and {file_of['']} does not "
            "specify its split; pass one of them as the data, or put train, val or test into its name"
        )
    return tuple((file_of[split], split) for split in ("train", "val", "test", "") if split in file_of)


def _is_coco(path: Path) -> bool:
    """Whether a JSON file is an object with images and annotations: results are a list, configs have other keys.

    A file that is truncated after these keys counts too: its reader reports the error.
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


def _folder_contents(root: Path) -> str:
    """The contents of a folder, for a message: number of files of each suffix, and subfolders."""
    files = list_files(root)
    suffixes = Counter(PurePosixPath(file).suffix.lower() or "no suffix" for file in files)
    counts = ", ".join(f"{count} x {suffix}" for suffix, count in suffixes.most_common(5)) or "no files"
    folders = sorted(subfolders(files).keys() - {""})
    return counts + (f" in the folders {first_names(folders)}" if folders else "")
