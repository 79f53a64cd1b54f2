"""Image files found by the names that annotation files of any machine have for them."""

from __future__ import annotations

import os
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from detseg.annotations.image_files import first_few
from detseg.annotations.listing import IMAGE_FOLDERS, is_image, list_files
from detseg.annotations.repair_log import RepairLog
from detseg.errors import DataError


@dataclass(frozen=True)
class Wanted:
    """One image that an annotation file speaks of.

    Attributes:
        name: as it stands there: a file name, a path below some folder, or an absolute path of another machine.
        near: folder of the annotation file, relative to the data folder: the first place to look.
        part: a word such as "train" that tells equal names apart by a folder of that name; "" for none.
    """

    name: str
    near: str = ""
    part: str = ""


class ImageLookup:
    """All images below a folder, asked by name.

    A name is only ever compared with the files that lie in the folder, so nothing outside it is opened, whatever the
    annotation file says. Unicode forms, backslashes and, for names without an image's suffix, the suffix make no
    difference.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self._exact: dict[str, str] = {}
        self._by_name: dict[str, list[str]] = {}
        self._by_stem: dict[str, list[str]] = {}
        self.files = [file for file in list_files(root) if is_image(file)]
        for file in self.files:
            self._exact[_plain(file)] = file
            name = _plain(file).rpartition("/")[2]
            self._by_name.setdefault(name, []).append(file)
            self._by_stem.setdefault(name.rpartition(".")[0], []).append(file)

    def find(self, wanted: Wanted) -> tuple[list[str], bool]:
        """The files that fit best (one, none, or several that cannot be told apart), relative to the folder; and
        whether their path agrees with the name in its end only."""
        for start in _starts(wanted):
            exact = self._exact.get(_plain(os.path.normpath(f"{start}/{wanted.name}" if start else wanted.name)))
            if exact is not None:
                return [exact], False
        parts, cut = _parts(wanted.name)
        if not parts:
            return [], False
        by_stem = not is_image(parts[-1])
        candidates = (self._by_stem if by_stem else self._by_name).get(parts[-1], [])
        for dropped in range(len(parts)):  # the longest common end
            tail = parts[dropped:]
            found = [file for file in candidates if _ends_with(file, tail, by_stem)]
            if found:
                return _closest(found, tail, wanted), cut or dropped > 0
        return [], False


def look_up_images(
    wanted: Sequence[Wanted], base: Path, images: str | os.PathLike[str] | None, source: str, notes: RepairLog
) -> tuple[Path, list[str]]:
    """The folder of the images, and each image's path in it with forward slashes.

    A path whose first folders are not there (it is of another machine, or leads out of the folder) is matched by its
    end, down to the file name alone, with a note. Images beside those found that nobody asked for are noted.

    Args:
        wanted: what the annotations name.
        base: the data folder: where to look, and else in a folder of images beside it.
        images: the folder to look in instead.
        source: what messages call the data set.

    Raises:
        DataError: images that are not there, or of which several fit: their number and the first five.
        FileNotFoundError: ``images`` is not a folder.
    """
    if images is not None and not Path(images).is_dir():
        raise FileNotFoundError(f"{images}: no such image folder")
    search = _best_search(wanted, base, None if images is None else Path(images))
    found, missing, several = [], [], []
    for one in wanted:
        files, by_end = search.find(one)
        if len(files) == 1:
            found.append(files[0])
            if by_end:
                notes.add("image of a path elsewhere found by its file name", f"{one.name} as {files[0]}")
        elif files:
            several.append(f"{one.name} ({first_few(files)})")
        else:
            missing.append(one.name or "(no name)")
    if missing:
        raise DataError(
            f"{source}: {len(missing)} of {len(wanted)} images are not in {search.root}: {first_few(missing)}; add "
            "the files, remove their annotations, or pass the folder that holds them with --images"
        )
    if several:
        raise DataError(
            f"{source}: {len(several)} of {len(wanted)} images fit more than one file: {first_few(several)}; write "
            "the path below the image folder, or pass the right folder with --images"
        )
    _note_unnamed(search, found, notes)
    return search.root, found


def _best_search(wanted: Sequence[Wanted], base: Path, images: Path | None) -> ImageLookup:
    search = ImageLookup(base if images is None else images)
    if images is not None or not wanted or any(search.find(one)[0] for one in wanted):
        return search
    beside = base.resolve().parent
    for folder in sorted(beside.iterdir()) if beside.is_dir() else []:
        if folder.name.lower() in IMAGE_FOLDERS and folder.is_dir():
            other = ImageLookup(folder)
            if any(other.find(one)[0] for one in wanted):
                return other
    return search


def _note_unnamed(search: ImageLookup, found: Sequence[str], notes: RepairLog) -> None:
    used = set(found)
    folders = {file.rpartition("/")[0] for file in used}
    for file in search.files:
        if file not in used and file.rpartition("/")[0] in folders:
            notes.add("image that no annotation names left out", file)


def _closest(found: list[str], tail: list[str], wanted: Wanted) -> list[str]:
    """Of several files: those in a folder of the part; else the one beside the annotations, or in images/."""
    if len(found) == 1:
        return found
    part = wanted.part.lower()
    inside = [file for file in found if part in file.lower().split("/")[:-1]]
    if part:
        return inside if len(inside) == 1 else found
    beside = [file for file in found if _plain(file).rpartition("/")[0] in _starts(wanted)]
    return beside[:1] or found


def _starts(wanted: Wanted) -> list[str]:
    """Folders that a path may begin at, the likeliest first."""
    near = f"{_plain(wanted.near)}/" if wanted.near else ""
    folders = [f"{near}images/{wanted.part}", f"{near}{wanted.part}"] if wanted.part else []
    return [*folders, near.rstrip("/"), f"{near}images", "", "images"]


def _ends_with(file: str, tail: list[str], by_stem: bool) -> bool:
    have = _plain(file).split("/")
    if by_stem:
        have[-1] = have[-1].rpartition(".")[0]
    return have[-len(tail) :] == tail


def _parts(name: str) -> tuple[list[str], bool]:
    """Folders and file of a path of any system, and whether a root, a drive or what stands before ``..`` was cut."""
    path = _plain(name).replace("\\", "/")
    parts = [part for part in path.split("/") if part not in ("", ".")]
    cut = path.startswith("/") or ".." in parts
    while ".." in parts:
        parts = parts[parts.index("..") + 1 :]
    if parts and parts[0].endswith(":"):  # C: or file:
        return parts[1:], True
    return parts, cut


def _plain(name: str) -> str:
    return unicodedata.normalize("NFC", name)
