"""Find the train, validation and test images of a YOLO data set."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath

from detseg.annotations.formats.shared.text_file import read_text
from detseg.annotations.image_files import first_few
from detseg.annotations.image_lookup import ImageLookup, ImageReference, check_missing
from detseg.annotations.listing import is_image, split_of, with_unpacked_archives, without_archives
from detseg.annotations.repair_log import RepairLog
from detseg.errors import DataError
from detseg.media.files import open_file

ORDER = ("train", "val", "test")

_UNPACKED = (with_unpacked_archives, without_archives)


class PathIndex:
    """Index of the listed folders and files, searched by untrusted paths.

    A path can only select a listed file or folder, so nothing outside the data folder is opened. It is searched as
    written (also as if archives were unpacked), then without a leading ``../`` (Roboflow's data.yaml points one level
    too high), then by its end, then an image as :class:`ImageLookup` does.
    """

    def __init__(self, images: Sequence[str], texts: Sequence[str]) -> None:
        self.images = list(images)
        self._files = {*images, *texts}
        self._folders = {"", *(str(parent) for file in images for parent in list(PurePosixPath(file).parents)[:-1])}
        self._by_canonical = {_canonical(folder): folder for folder in sorted(self._folders, reverse=True)}
        inside = [path for path in sorted({*self._files, *self._folders}) if without_archives(path) != path]
        self._unpacked = {as_unpacked(path): path for as_unpacked in _UNPACKED for path in inside}
        self._lookup = ImageLookup(Path(), files=images)

    def find(self, entry: str, base: str = "") -> tuple[str | None, bool]:
        """The folder or file of ``entry`` (relative to ``base``), and whether it is at another path than stated."""
        entry = entry.replace("\\", "/")
        inside = _path_parts(entry, [])
        for parts in (_path_parts(entry, base.split("/") if base else []), inside):
            path = "/".join(parts)
            if path in self._files or path in self._folders:
                return path, False
            if path in self._unpacked:
                return self._unpacked[path], False
        split_positions = [position for position, part in enumerate(inside) if split_of(part)]
        for start in range(split_positions[-1] + 1 if split_positions else len(inside)):  # keep the split folder
            path = "/".join(inside[start:])
            if path in self._files or path in self._folders:
                return path, True
            if _canonical(path) in self._by_canonical:  # val/ for valid/
                return self._by_canonical[_canonical(path)], True
        matches, _ = self._lookup.find(ImageReference(entry)) if inside else ([], "")
        return (matches[0], True) if len(matches) == 1 else (None, False)

    def inside(self, folder: str) -> list[str]:
        """All images below a folder."""
        return [file for file in self.images if not folder or file.startswith(f"{folder}/")]


def read_configured_splits(
    paths: PathIndex,
    splits: dict[str, list[str]],
    config: str,
    root: Path,
    images_folder: str | os.PathLike[str] | None,
    notes: RepairLog,
    missing_images: str = "error",
) -> dict[str, str] | None:
    """``image -> "train" | "val" | "test" | ""`` according to a config; None if it defines no splits.

    Args:
        splits: split -> folders, lists or images.
        config: file that defines the splits, for messages.
        root: the data folder.
        images_folder: the image folder that the user passed.
        missing_images: "error", or "drop" to leave listed images without a file out with a note.

    Raises:
        DataError: none of the paths exists, a list contains missing images, or an image is in two splits. (Two splits
            with exactly the same images are merged, with a note.)
    """
    images_of: dict[str, list[str]] = {}
    for split in [split for split in ORDER if split in splits]:
        images: list[str] = []
        for entry in splits[split]:
            path, relocated = paths.find(entry)
            if path is None:
                notes.add(f"{split} of {config} not found", entry)
                continue
            if relocated:
                notes.add("folder or list found at another path than stated", f"{config}: {entry} as {path}")
            if is_image(path):
                images.append(path)
            elif path.lower().endswith(".txt"):
                images += _listed_images(paths, root, images_folder, path, notes, missing_images)
            else:
                images += paths.inside(path)
        if images:
            images_of[split] = list(dict.fromkeys(images))
    if splits and not images_of:
        all_entries = [entry for entries in splits.values() for entry in entries]
        raise DataError(
            f"{config}: none of {first_few(all_entries)} is in {root} with images; pass the folder that contains them "
            "as the data, or correct path, train and val"
        )
    return _split_of_image(images_of, config, notes) if images_of else None


def splits_from_folders(images: Sequence[str], label_of: Mapping[str, str]) -> dict[str, str]:
    """``image -> split`` from the folder names of the image, else from those of its label file."""
    return {file: _folder_split(file) or _folder_split(label_of.get(file, "")) for file in images}


def split_lists(root: Path, texts: Sequence[str]) -> dict[str, list[str]]:
    """The image lists train.txt, val.txt, test.txt directly in the data folder, by split."""
    lists: dict[str, list[str]] = {}
    for file in texts:
        split = split_of(PurePosixPath(file).stem)
        if split and "/" not in file and file.lower().endswith(".txt"):
            with open_file(root / file) as stream:
                first_line = stream.read(4096).decode("utf-8-sig", "replace").strip().splitlines()[:1]
            if first_line and is_image(first_line[0].strip()):
                lists.setdefault(split, []).append(file)
    return lists


def _listed_images(
    paths: PathIndex,
    root: Path,
    images_folder: str | os.PathLike[str] | None,
    file: str,
    notes: RepairLog,
    missing_images: str,
) -> list[str]:
    images, missing = [], []
    for line in read_text(root / file, file).splitlines():
        entry = line.strip()
        if not entry:
            continue
        path, relocated = paths.find(entry, file.rpartition("/")[0] if entry.startswith("./") else "")
        if path is None or not is_image(path):
            missing.append(entry)
            continue
        if relocated:
            notes.add("image of a list found at another path than stated", f"{file}: {entry} as {path}")
        images.append(path)
    if missing:
        number = len(missing) + len(images)
        text = (
            f"{file}: {len(missing)} of {number} images are not in {root}: {first_few(missing)}; add the files, or "
            "remove the lines"
        )
        check_missing(len(missing), number, text, images_folder, missing_images)
        for entry in missing:
            notes.add("listed image without a file left out of its split", f"{file}: {entry}")
    return images


def _split_of_image(images_of: dict[str, list[str]], config: str, notes: RepairLog) -> dict[str, str]:
    """``image -> split``; two splits with the same images are merged with a note, other overlaps are errors."""
    split_by_image: dict[str, str] = {}
    for split, images in images_of.items():
        duplicates = [other for other in images_of if other != split and set(images_of[other]) == set(images)]
        if duplicates and split != "train" and (duplicates[0] == "train" or split == "test"):
            notes.add("two splits have the same images, used once", f"{config}: {duplicates[0]} and {split}")
            if {"train", "val"} <= {split, *duplicates}:
                split_by_image.update(dict.fromkeys(images, ""))  # there is no held-out data
            continue
        for image in images:
            if split_by_image.get(image, split) != split:
                raise DataError(
                    f"{config}: the image {image} is in {split_by_image[image]} and in {split}; remove it from one of "
                    "them"
                )
            split_by_image[image] = split
    return split_by_image


def _path_parts(entry: str, start: list[str]) -> list[str]:
    """Folders of a path relative to ``start``; steps above the data folder and drive letters are dropped."""
    parts = list(start)
    for part in entry.split("/"):
        if part == "..":
            parts = parts[:-1]
        elif part not in ("", ".") and not part.endswith(":"):
            parts.append(part)
    return parts


def _folder_split(file: str) -> str:
    """The split of the innermost folder whose name is a split; "" if there is none."""
    return next((split for folder in reversed(file.split("/")[:-1]) if (split := split_of(folder))), "")


def _canonical(path: str) -> str:
    """The path with split folders renamed to train, val, test."""
    return "/".join(split_of(part) or part for part in path.split("/"))
