"""Read the lists of a Pascal VOC folder: splits from ImageSets/Main, class names from labelmap.txt."""

from __future__ import annotations

import re
from collections.abc import Collection
from pathlib import Path, PurePosixPath

from detseg.annotations.formats.shared.file_pairs import pair_key
from detseg.annotations.formats.shared.labelmap import parse_labelmap
from detseg.annotations.formats.shared.text_file import read_text
from detseg.annotations.listing import is_image, split_of
from detseg.annotations.repair_log import RepairLog
from detseg.errors import DataError

IMAGE_SET = re.compile(r"(^|/)imagesets/main/[^/]+\.txt$", re.IGNORECASE)
"""Path of a list of images."""

_COMBINED = ("trainval", "default")  # lists that do not define one split
_FLAG = re.compile(r"\s+-?[01]$")  # follows the name in single-class lists


def read_image_sets(
    root: Path, files: list[str], annotation_keys: Collection[str], notes: RepairLog
) -> dict[str, str] | None:
    """The split of each image from ImageSets/Main; None if there are no such lists.

    ``train``, ``val``, ``test`` and their usual variants are used; ``trainval`` alone means train; single-class lists
    (``aeroplane_train``) are skipped.

    Args:
        root: the data folder.
        files: all files in it.
        annotation_keys: ``pair_key`` of each annotation file.
        notes: names without an annotation file are noted here.

    Returns:
        ``pair_key -> "train" | "val" | "test" | ""``; images that are in no list are missing.

    Raises:
        DataError: an image is in two lists of different splits; a list is not UTF-8.
    """
    lists = [file for file in files if IMAGE_SET.search(file)]
    lists = [file for file in lists if _list_split(file) in ("train", "val", "test", *_COMBINED)]
    if not lists:
        return None
    assigned: dict[str, tuple[str, str]] = {}
    for file in sorted(lists, key=lambda file: _list_split(file) in _COMBINED):  # lists of one split come first
        split = {"trainval": "train", "default": ""}.get(_list_split(file), _list_split(file))
        base = "/".join(PurePosixPath(file).parts[:-3])
        for line in read_text(root / file, file).splitlines():
            name = line.strip().strip('"')
            key = _list_key(base, name)
            if key not in annotation_keys:
                bare = _FLAG.sub("", name).strip().strip('"')
                key = _list_key(base, bare.rpartition(".")[0] if is_image(bare) else bare)
            if not name or (key not in annotation_keys and name.startswith("#")):
                continue
            if key not in annotation_keys:
                notes.add("listed name without an annotation file ignored", f"{file}: {name}")
                continue
            first_split, first_file = assigned.setdefault(key, (split, file))
            if first_split != split and _list_split(file) not in _COMBINED:
                raise DataError(
                    f"{file}: {name} is also in {first_file}; an image belongs to one split: remove it from "
                    f"{first_split} or {split}"
                )
            if _list_split(file) == "trainval" and first_split == "test":
                raise DataError(f"{file}: {name} is also in {first_file}; remove it from one of them")
    return {key: split for key, (split, _) in assigned.items()}


def read_labelmap(root: Path, files: list[str]) -> list[str]:
    """Class names in the order of the folder's ``labelmap.txt`` (``name:color:parts:actions``); [] if there is none."""
    file = next((file for file in files if file.lower() == "labelmap.txt"), None)
    if file is None:
        return []
    return list(dict.fromkeys(name for name, _ in parse_labelmap(read_text(root / file, file))))


def _list_split(file: str) -> str:
    stem = PurePosixPath(file).stem.lower()
    return stem if stem in _COMBINED else split_of(stem)


def _list_key(base: str, name: str) -> str:
    """The ``pair_key`` of a name in a list, which has no suffix but may contain dots."""
    return pair_key(f"{base}/{name}.xml" if base else f"{name}.xml")
