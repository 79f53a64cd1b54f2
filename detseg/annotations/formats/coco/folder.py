"""Find the COCO files of a folder, and read them as one table."""

from __future__ import annotations

from pathlib import Path, PurePosixPath

import msgspec

from detseg.annotations.concatenate import concatenate
from detseg.annotations.formats.coco.read import read_coco
from detseg.annotations.formats.format import Detected, Layout, ReadOptions
from detseg.annotations.formats.shared.annotation_files import split_in_name
from detseg.annotations.groups import first_names
from detseg.annotations.listing import list_files, split_of, without_archives
from detseg.annotations.table import AnnotationTable
from detseg.errors import DataError
from detseg.media.files import open_file


class _Head(msgspec.Struct):
    """The required keys of a COCO file; their values are not parsed here."""

    images: msgspec.Raw
    annotations: msgspec.Raw


def find_coco(root: Path, files: list[str]) -> Detected | None:
    """The COCO files of a folder and the split of each as ``parts``, in the order train, val, test.

    They are in the folder, in annotations/, or in a folder per split; if a split has several, the one whose name begins
    with "instances" is used (COCO's own download has captions and keypoints of the same images in the same folder).

    Raises:
        DataError: several annotation files of the same split.
    """
    by_split: dict[str, list[str]] = {}
    for file in files:
        path = PurePosixPath(without_archives(file))
        parent = path.parent.name
        if _is_expected(file) and _is_coco(root / file):
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
    detected = tuple((file_of[split], split) for split in ("train", "val", "test", "") if split in file_of)
    names = ", ".join(f"{name} ({split})" if split else name for name, split in detected)
    return Detected(f"COCO: {names}", detected) if detected else None


def read_coco_files(layout: Layout, options: ReadOptions) -> AnnotationTable:
    """Read a COCO file, or all files that :func:`find_coco` found."""
    if not layout.file:  # a link to another annotation file would be left out silently
        list_files(layout.root, options.follow_links, _is_expected)
    tables = [
        read_coco(layout.root / name, split=split, data_folder=layout.root, **options.of_every_reader)
        for name, split in layout.parts or ((layout.file, ""),)
    ]
    return tables[0] if len(tables) == 1 else concatenate(tables)


def _is_expected(file: str) -> bool:
    """Whether a file is a JSON file where annotation files are searched."""
    path = PurePosixPath(without_archives(file))
    parent, depth = path.parent.name, len(path.parts) - 1
    expected = depth == 0 or parent.lower() in ("annotations", "annotation", "labels") or bool(split_of(parent))
    return path.suffix.lower() == ".json" and depth <= 1 and expected


def _is_coco(path: Path) -> bool:
    """Whether a JSON file is an object with images and annotations: results are a list, configs have other keys.

    A file that is truncated after these keys counts too: its reader reports the error.
    """
    with open_file(path) as file:
        head = file.read(512).removeprefix(b"\xef\xbb\xbf").lstrip()
        if not head.startswith(b"{"):
            return False
        file.seek(0)
        text = file.read().removeprefix(b"\xef\xbb\xbf")
    try:
        msgspec.json.decode(text, type=_Head)
    except msgspec.ValidationError:
        return False
    except (msgspec.MsgspecError, ValueError, RecursionError):
        return b'"images"' in text and b'"annotations"' in text
    return True
