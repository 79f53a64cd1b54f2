"""Which images of a YOLO data set are for training, validation and test."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath

from detseg.annotations.formats.shared.text_file import read_text
from detseg.annotations.image_files import first_few
from detseg.annotations.listing import is_image, split_of
from detseg.annotations.repair_log import RepairLog
from detseg.errors import DataError

ORDER = ("train", "val", "test")


class PathIndex:
    """The folders and files of one or two listings, asked by paths as strangers wrote them.

    A path only ever selects among what is listed, so nothing outside the data folder is opened. It is looked for as it
    stands, then with a leading ``../`` left out (Roboflow's data.yaml points one level too high), then by its end.
    """

    def __init__(self, images: Sequence[str], texts: Sequence[str]) -> None:
        self.images = list(images)
        self._files = {*images, *texts}
        self._folders = {"", *(str(parent) for file in images for parent in list(PurePosixPath(file).parents)[:-1])}
        self._plain = {_canonical(folder): folder for folder in sorted(self._folders, reverse=True)}
        self._by_name: dict[str, list[str]] = {}
        for file in images:
            self._by_name.setdefault(file.rpartition("/")[2], []).append(file)

    def find(self, entry: str, base: str = "") -> tuple[str | None, bool]:
        """The folder or file of ``entry`` (relative to ``base``), and whether it was found elsewhere than it says."""
        entry = entry.replace("\\", "/")
        inside = _parts(entry, [])
        for parts in (_parts(entry, base.split("/") if base else []), inside):
            path = "/".join(parts)
            if path in self._files or path in self._folders:
                return path, False
        words = [position for position, part in enumerate(inside) if split_of(part)]
        for start in range(words[-1] + 1 if words else len(inside)):  # the end keeps the word that tells the part
            path = "/".join(inside[start:])
            if path in self._files or path in self._folders:
                return path, True
            if _canonical(path) in self._plain:  # val/ for valid/
                return self._plain[_canonical(path)], True
        same = self._by_name.get(inside[-1] if inside else "", [])
        return (same[0], True) if len(same) == 1 else (None, False)

    def inside(self, folder: str) -> list[str]:
        """All images below a folder."""
        return [file for file in self.images if not folder or file.startswith(f"{folder}/")]


def named_parts(
    places: PathIndex, parts: dict[str, list[str]], config: str, root: Path, notes: RepairLog
) -> dict[str, str] | None:
    """``image -> "train" | "val" | "test" | ""`` of the images that a config names; None if it names none.

    Args:
        parts: part -> folders, lists or images.
        config: the file that says so, for messages.
        root: the data folder.

    Raises:
        DataError: nothing that it names is there, a list names images that are not there, or an image is in two
            parts. (Two parts that are the very same images are one, with a note.)
    """
    found: dict[str, list[str]] = {}
    for part in [part for part in ORDER if part in parts]:
        members: list[str] = []
        for entry in parts[part]:
            place, elsewhere = places.find(entry)
            if place is None:
                notes.add(f"{part} of {config} is not there", entry)
                continue
            if elsewhere:
                notes.add("folder or list found elsewhere than it is said to be", f"{config}: {entry} as {place}")
            if is_image(place):
                members.append(place)
            elif place.lower().endswith(".txt"):
                members += _listed(places, root, place, notes)
            else:
                members += places.inside(place)
        if members:
            found[part] = list(dict.fromkeys(members))
    if parts and not found:
        named = [entry for entries in parts.values() for entry in entries]
        raise DataError(
            f"{config}: none of {first_few(named)} is in {root} (or images are not in it); give the folder that "
            "holds them as the data, or correct path, train and val"
        )
    return _divided(found, config, notes) if found else None


def folder_parts(images: Sequence[str], label_of: Mapping[str, str]) -> dict[str, str]:
    """The same for all images, from the names of their folders or, where these say nothing, of their label file's."""
    return {file: _folder_part(file) or _folder_part(label_of.get(file, "")) for file in images}


def list_files_of_parts(root: Path, texts: Sequence[str]) -> dict[str, list[str]]:
    """Lists of images called train.txt, val.txt, test.txt in the data folder itself."""
    found: dict[str, list[str]] = {}
    for file in texts:
        part = split_of(PurePosixPath(file).stem)
        if part and "/" not in file and file.lower().endswith(".txt"):
            with (root / file).open("rb") as stream:
                first = stream.read(4096).decode("utf-8-sig", "replace").strip().splitlines()[:1]
            if first and is_image(first[0].strip()):
                found.setdefault(part, []).append(file)
    return found


def _listed(places: PathIndex, root: Path, file: str, notes: RepairLog) -> list[str]:
    found, missing = [], []
    for line in read_text(root / file, file).splitlines():
        entry = line.strip()
        if not entry:
            continue
        place, elsewhere = places.find(entry, file.rpartition("/")[0] if entry.startswith("./") else "")
        if place is None or not is_image(place):
            missing.append(entry)
            continue
        if elsewhere:
            notes.add("image of a list found elsewhere than it is said to be", f"{file}: {entry} as {place}")
        found.append(place)
    if missing:
        raise DataError(
            f"{file}: {len(missing)} of {len(missing) + len(found)} images are not in {root}: {first_few(missing)}; "
            "add the files, remove the lines, or pass the folder that holds them with --images"
        )
    return found


def _divided(found: dict[str, list[str]], config: str, notes: RepairLog) -> dict[str, str]:
    parts: dict[str, str] = {}
    for part, members in found.items():
        twins = [other for other in found if other != part and set(found[other]) == set(members)]
        if twins and part != "train" and (twins[0] == "train" or part == "test"):
            notes.add("two parts are the same images, taken once", f"{config}: {twins[0]} and {part}")
            if {"train", "val"} <= {part, *twins}:
                parts.update(dict.fromkeys(members, ""))  # nothing was set aside
            continue
        for member in members:
            if parts.get(member, part) != part:
                raise DataError(
                    f"{config}: the image {member} is in {parts[member]} and in {part}; take it out of one of them"
                )
            parts[member] = part
    return parts


def _parts(entry: str, start: list[str]) -> list[str]:
    """Folders of a path from ``start``; what leads above the data folder is dropped, as is a drive."""
    parts = list(start)
    for part in entry.split("/"):
        if part == "..":
            parts = parts[:-1]
        elif part not in ("", ".") and not part.endswith(":"):
            parts.append(part)
    return parts


def _folder_part(file: str) -> str:
    """What the innermost folder with such a name says."""
    return next((part for folder in reversed(file.split("/")[:-1]) if (part := split_of(folder))), "")


def _canonical(path: str) -> str:
    return "/".join(split_of(part) or part for part in path.split("/"))
