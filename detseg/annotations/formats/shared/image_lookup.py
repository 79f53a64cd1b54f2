"""Find image files by the names in annotation files, including paths written on other machines."""

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
class ImageReference:
    """The image that an annotation refers to.

    Attributes:
        name: as written in the file: a file name, a path below some folder, or an absolute path of another machine.
        folder: folder of the annotation file, relative to the data folder: searched first.
        subset: a word such as "train"; of several images with the same name, the one in a folder with this name is
            used; "" for none.
    """

    name: str
    folder: str = ""
    subset: str = ""


class ImageLookup:
    """All images below a folder, searched by name.

    A name is only compared with the files that exist in the folder, so no file outside it is opened, whatever the
    annotation file contains. Unicode normal forms and backslashes are treated as equal, and so is the suffix for names
    without an image suffix.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self._exact: dict[str, str] = {}
        self._by_name: dict[str, list[str]] = {}
        self._by_stem: dict[str, list[str]] = {}
        self.files = [file for file in list_files(root) if is_image(file)]
        for file in self.files:
            self._exact[_normalized(file)] = file
            name = _normalized(file).rpartition("/")[2]
            self._by_name.setdefault(name, []).append(file)
            self._by_stem.setdefault(name.rpartition(".")[0], []).append(file)

    def find(self, reference: ImageReference) -> tuple[list[str], bool]:
        """The files that match best (one, none, or several if ambiguous), relative to the folder; and whether only
        the end of the path matches."""
        for start in _start_folders(reference):
            path = f"{start}/{reference.name}" if start else reference.name
            exact = self._exact.get(_normalized(os.path.normpath(path)))
            if exact is not None:
                return [exact], False
        parts, cut = _path_parts(reference.name)
        if not parts:
            return [], False
        by_stem = not is_image(parts[-1])
        candidates = (self._by_stem if by_stem else self._by_name).get(parts[-1], [])
        for dropped in range(len(parts)):  # the longest common end
            tail = parts[dropped:]
            matches = [file for file in candidates if _ends_with(file, tail, by_stem)]
            if matches:
                return _preferred(matches, reference), cut or dropped > 0
        return [], False


def look_up_images(
    references: Sequence[ImageReference],
    base: Path,
    images: str | os.PathLike[str] | None,
    source: str,
    notes: RepairLog,
) -> tuple[Path, list[str]]:
    """The image folder, and the path of each image in it with forward slashes.

    A path whose first folders do not exist (it is from another machine, or leads out of the folder) is matched by its
    end, down to the file name alone, with a note. Images in the same folders without annotation are noted.

    Args:
        references: the images that the annotations refer to.
        base: the data folder: searched first, then image folders next to it.
        images: the folder to search instead.
        source: name of the data set in messages.

    Raises:
        DataError: images that are missing, or that match several files: their number and the first five.
        FileNotFoundError: ``images`` is not a folder.
    """
    if images is not None and not Path(images).is_dir():
        raise FileNotFoundError(f"{images}: no such image folder")
    lookup = _select_lookup(references, base, None if images is None else Path(images))
    paths, missing, ambiguous = [], [], []
    for reference in references:
        files, end_only = lookup.find(reference)
        if len(files) == 1:
            paths.append(files[0])
            if end_only:
                notes.add(
                    "image with a path of another machine found by its file name", f"{reference.name} as {files[0]}"
                )
        elif files:
            ambiguous.append(f"{reference.name} ({first_few(files)})")
        else:
            missing.append(reference.name or "(no name)")
    if missing:
        raise DataError(
            f"{source}: {len(missing)} of {len(references)} images are not in {lookup.root}: {first_few(missing)}; "
            "add the files, remove their annotations, or pass the folder that contains them with --images"
        )
    if ambiguous:
        raise DataError(
            f"{source}: {len(ambiguous)} of {len(references)} images match more than one file: "
            f"{first_few(ambiguous)}; write the path below the image folder, or pass the right folder with --images"
        )
    _note_unannotated(lookup, paths, notes)
    return lookup.root, paths


def _select_lookup(references: Sequence[ImageReference], base: Path, images: Path | None) -> ImageLookup:
    lookup = ImageLookup(base if images is None else images)
    if images is not None or not references or any(lookup.find(reference)[0] for reference in references):
        return lookup
    parent = base.resolve().parent
    for folder in sorted(parent.iterdir()) if parent.is_dir() else []:
        if folder.name.lower() in IMAGE_FOLDERS and folder.is_dir():
            other = ImageLookup(folder)
            if any(other.find(reference)[0] for reference in references):
                return other
    return lookup


def _note_unannotated(lookup: ImageLookup, paths: Sequence[str], notes: RepairLog) -> None:
    used = set(paths)
    folders = {file.rpartition("/")[0] for file in used}
    for file in lookup.files:
        if file not in used and file.rpartition("/")[0] in folders:
            notes.add("image without annotation left out", file)


def _preferred(files: list[str], reference: ImageReference) -> list[str]:
    """Of several files: those in a folder of the subset; else the one next to the annotations, or in images/."""
    if len(files) == 1:
        return files
    subset = reference.subset.lower()
    inside = [file for file in files if subset in file.lower().split("/")[:-1]]
    if subset:
        return inside if len(inside) == 1 else files
    nearby = [file for file in files if _normalized(file).rpartition("/")[0] in _start_folders(reference)]
    return nearby[:1] or files


def _start_folders(reference: ImageReference) -> list[str]:
    """Folders that a path may be relative to, the most likely first."""
    folder = f"{_normalized(reference.folder)}/" if reference.folder else ""
    subset = reference.subset
    folders = [f"{folder}images/{subset}", f"{folder}{subset}"] if subset else []
    return [*folders, folder.rstrip("/"), f"{folder}images", "", "images"]


def _ends_with(file: str, tail: list[str], by_stem: bool) -> bool:
    parts = _normalized(file).split("/")
    if by_stem:
        parts[-1] = parts[-1].rpartition(".")[0]
    return parts[-len(tail) :] == tail


def _path_parts(name: str) -> tuple[list[str], bool]:
    """Folders and file of a path of any system, and whether a root, a drive or the part before ``..`` was removed."""
    path = _normalized(name).replace("\\", "/")
    parts = [part for part in path.split("/") if part not in ("", ".")]
    cut = path.startswith("/") or ".." in parts
    while ".." in parts:
        parts = parts[parts.index("..") + 1 :]
    if parts and parts[0].endswith(":"):  # C: or file:
        return parts[1:], True
    return parts, cut


def _normalized(name: str) -> str:
    return unicodedata.normalize("NFC", name)
