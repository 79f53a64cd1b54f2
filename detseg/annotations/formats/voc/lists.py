"""The lists of a Pascal VOC folder: ImageSets/Main says which image is for what, labelmap.txt which classes exist."""

from __future__ import annotations

import re
from collections.abc import Collection
from pathlib import Path, PurePosixPath

from detseg.annotations.formats.shared.file_pairs import pair_key
from detseg.annotations.formats.shared.text_file import read_text
from detseg.annotations.listing import is_image, split_of
from detseg.annotations.repair_log import RepairLog
from detseg.errors import DataError

_WHOLE = ("trainval", "default")  # lists that do not divide
_FLAG = re.compile(r"\s+-?[01]$")  # what lists of one class have behind the name


def read_image_sets(root: Path, files: list[str], known: Collection[str], notes: RepairLog) -> dict[str, str] | None:
    """What ImageSets/Main says of each image; None if there are no such lists.

    ``train``, ``val``, ``test`` and their usual variants count; ``trainval`` alone means train; lists of one class
    (``aeroplane_train``) are passed over.

    Args:
        root: the data folder.
        files: all files in it.
        known: ``pair_key`` of each annotation file.
        notes: names that have no annotation file are noted here.

    Returns:
        ``pair_key -> "train" | "val" | "test" | ""``; images in no list are missing.

    Raises:
        DataError: an image is in two lists that exclude each other; a list is not UTF-8.
    """
    lists = [file for file in files if re.search(r"(^|/)imagesets/main/[^/]+\.txt$", file, re.IGNORECASE)]
    lists = [file for file in lists if _part(file) in ("train", "val", "test", *_WHOLE)]
    if not lists:
        return None
    found: dict[str, tuple[str, str]] = {}
    for file in sorted(lists, key=lambda file: _part(file) in _WHOLE):  # those that divide come first
        part = {"trainval": "train", "default": ""}.get(_part(file), _part(file))
        base = "/".join(PurePosixPath(file).parts[:-3])
        for line in read_text(root / file, file).splitlines():
            name = line.strip().strip('"')
            key = _key(base, name)
            if key not in known:
                bare = _FLAG.sub("", name).strip().strip('"')
                key = _key(base, bare.rpartition(".")[0] if is_image(bare) else bare)
            if not name or (key not in known and name.startswith("#")):
                continue
            if key not in known:
                notes.add("name in a list without annotation file left out", f"{file}: {name}")
                continue
            first, where = found.setdefault(key, (part, file))
            if first != part and _part(file) not in _WHOLE:
                raise DataError(
                    f"{file}: {name} is also in {where}; an image is for {first} or for {part}: take it out of one"
                )
            if _part(file) == "trainval" and first == "test":
                raise DataError(f"{file}: {name} is also in {where}; take it out of one")
    return {key: part for key, (part, _) in found.items()}


def read_labelmap(root: Path, files: list[str]) -> list[str]:
    """Class names in the order of a ``labelmap.txt`` (``name:colour:parts:actions``) in the folder; [] for none."""
    file = next((file for file in files if file.lower() == "labelmap.txt"), None)
    if file is None:
        return []
    lines = [line.strip() for line in read_text(root / file, file).splitlines()]
    names = [line.rsplit(":", 3)[0] for line in lines if line.count(":") >= 3 and not line.startswith("#")]
    return list(dict.fromkeys(name for name in names if name))


def _part(file: str) -> str:
    stem = PurePosixPath(file).stem.lower()
    return stem if stem in _WHOLE else split_of(stem)


def _key(base: str, name: str) -> str:
    """Names in lists have no suffix, but may hold dots."""
    return pair_key(f"{base}/{name}.xml" if base else f"{name}.xml")
