"""Find the image files of an annotation file, and read their headers."""

from __future__ import annotations

import os
import unicodedata
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from detseg.errors import DataError
from detseg.images import ImageHeader, read_header
from detseg.runtime.missing_path import missing_path
from detseg.runtime.reporter import progress

NAMED = 5
"""Number of file names listed in a message."""

THREADS = 8
"""Threads that read headers: opening a file waits for the disk, most of all on network storage."""

_SAMPLE = 100  # number of file names used to find the folder
_PREFIXES = ("instances_", "person_keypoints_", "annotations_", "image_info_", "labels_", "stuff_")
_SPLITS = ("train", "val", "test", "valid")


class ImageFolder:
    """Find image files in a folder by the names that an annotation file uses.

    Names that differ only in Unicode normalization (macOS stores "e" and an accent, others "é") and names with Windows
    backslashes are found too.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self._real = os.path.realpath(root)
        self._listings: dict[str, dict[str, str]] = {}

    def find(self, name: str) -> str | None:
        """The path of ``name`` on disk, relative to the folder with forward slashes; None if there is no such file.

        Raises:
            DataError: the file is outside the folder (``..``, an absolute path, or a link to another folder).
        """
        file = self.find_unchecked(name)
        if file is None:
            return None
        path = os.path.join(self.root, file)  # noqa: PTH118  (pathlib is four times slower on 100,000 names)
        real = os.path.realpath(path)
        if not real.startswith(self._real.rstrip(os.sep) + os.sep):
            raise DataError(
                f"{name}: points outside the image folder {self.root}, to {real}; pass --images with the folder "
                "that contains the files, or copy them into it"
            )
        if os.path.isabs(file):  # noqa: PTH117
            return Path(os.path.relpath(real, self._real)).as_posix()
        return file

    def find_unchecked(self, name: str) -> str | None:
        """As :meth:`find`, without checking that the file is inside the folder."""
        if "\0" in name:
            return None
        for candidate in (name, name.replace("\\", "/")):
            if os.path.isfile(os.path.join(self.root, candidate)):  # noqa: PTH113, PTH118
                return candidate
        parent, _, last = name.replace("\\", "/").rpartition("/")
        if parent not in self._listings:
            try:
                entries = os.listdir(self.root / parent)  # noqa: PTH208
            except OSError:
                entries = []
            self._listings[parent] = {unicodedata.normalize("NFC", entry): entry for entry in entries}
        entry = self._listings[parent].get(unicodedata.normalize("NFC", last))
        return None if entry is None else f"{parent}/{entry}" if parent else entry


def find_image_files(
    names: Sequence[str],
    annotations: Path,
    images: str | os.PathLike[str] | None,
    split: str = "",
    source: str = "",
) -> tuple[Path, list[str]]:
    """Find the image folder, and the path of each image relative to it.

    Args:
        names: file names as written in the annotation file.
        annotations: the annotation file: the search starts in its folder.
        images: the image folder, or its parent; None to search the usual folders.
        split: name of the split, a hint for the name of the folder.
        source: name of the annotation file in messages; its file name if empty.

    Raises:
        DataError: images are missing (lists their number and the first five), or are outside the folder.
        FileNotFoundError: ``images`` is not a folder.
    """
    if images is not None and not Path(images).is_dir():
        raise missing_path(images, "image folder")
    source = source or annotations.name
    likely, possible = _candidate_folders(annotations, None if images is None else Path(images), split)
    if not names:
        return likely[0], []
    sample = names[:: max(1, len(names) // _SAMPLE)]
    folder = _best_folder(likely, sample) or _best_folder(possible, sample, unique=True)
    if folder is None:
        searched = [str(path) for path in likely + possible]
        raise DataError(
            f"{source}: its {len(names)} images were not found (such as {names[0]}); searched in "
            f"{first_few(searched)}; pass their folder with --images"
        )
    try:
        files = [folder.find(name) for name in names]
    except DataError as error:
        raise DataError(f"{source}, image {error}") from None
    missing = [name for name, path in zip(names, files, strict=True) if path is None]
    if missing:
        raise DataError(
            f"{source}: {len(missing)} of {len(names)} images are not in {folder.root}: "
            f"{first_few(missing)}; add the files, remove the entries, or pass another folder with --images"
        )
    return folder.root, [path for path in files if path is not None]


def read_headers(root: Path, names: Sequence[str], source: str) -> list[ImageHeader]:
    """Read the headers of many files in several threads, with a progress bar on a terminal.

    Raises:
        DataError: files that cannot be read as images (lists their number and the first five).
    """

    def read(name: str) -> ImageHeader | str:
        try:
            return read_header(root / name)
        except (DataError, OSError) as error:
            return str(error)

    with ThreadPoolExecutor(THREADS) as pool:
        results = list(progress(pool.map(read, names), f"{source}: image sizes", total=len(names)))
    broken = [f"{name} ({header})" for name, header in zip(names, results, strict=True) if isinstance(header, str)]
    if broken:
        raise DataError(
            f"{source}: {len(broken)} of {len(names)} images cannot be read: {first_few(broken)}; replace the files or "
            "remove the entries"
        )
    return [header for header in results if isinstance(header, ImageHeader)]


def _best_folder(folders: Sequence[Path], sample: Sequence[str], unique: bool = False) -> ImageFolder | None:
    """The folder with most of the names, the first on a tie; None if no name is found, or on a tie if ``unique``."""
    candidates = [ImageFolder(folder) for folder in folders]
    hits = [sum(candidate.find_unchecked(name) is not None for name in sample) for candidate in candidates]
    best = max(hits, default=0)
    if not best or (unique and hits.count(best) > 1):
        return None
    return candidates[hits.index(best)]


def _candidate_folders(annotations: Path, images: Path | None, split: str) -> tuple[list[Path], list[Path]]:
    """Existing folders: likely ones by the location and name of the file (or by ``split``), and other possible ones."""
    base = annotations.parent.resolve()
    starts = [base, base.parent] if images is None else [images]
    bare = annotations.stem
    for prefix in _PREFIXES:
        bare = bare.removeprefix(prefix)
    words = [word for word in (split, annotations.stem, bare, bare.rstrip("0123456789")) if word]
    words += [f"{word}2017" for word in words if word in _SPLITS]

    def below(word: str) -> list[Path]:
        return [start / inner / word for start in starts for inner in ("", "images")]

    likely = [starts[0], starts[0] / "images", *(path for word in words for path in below(word)), *below("")]
    possible = [path for word in _SPLITS for path in below(word)]
    likely, possible = ([path for path in dict.fromkeys(paths) if path.is_dir()] for paths in (likely, possible))
    return likely, [path for path in possible if path not in likely]


def first_few(items: Sequence[str]) -> str:
    """The first ``NAMED`` items, comma separated."""
    return ", ".join(items[:NAMED]) + (", ..." if len(items) > NAMED else "")
