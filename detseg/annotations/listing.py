"""List the files of a data folder, and classify them by name only."""

from __future__ import annotations

import os
import unicodedata
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

from detseg.annotations.own_files import DRAWINGS, OUTPUT_FOLDERS, is_drawing, is_predicted, own_files
from detseg.array_images import is_target
from detseg.errors import DataError
from detseg.images import IMAGE_SUFFIXES
from detseg.media.files import CONTAINER_SUFFIXES, container_of, has_container_suffix, scandir

IGNORED_NAMES = ("thumbs.db", "ehthumbs.db", "desktop.ini", "__macosx", "$recycle.bin", "icon\r")
"""Files created by file managers and archivers, in lower case; ignored like names that begin with a dot."""

IMAGE_FOLDERS = ("images", "image", "imgs", "img", "pngimages", "jpegimages", "photos", "pictures")
"""Usual names of the image folder, in lower case; otherwise it is the only other folder with images."""

MASK_FOLDERS = (
    "pedmasks", "masks", "mask", "label", "labels", "segmentationclass", "segmentationobject", "segmentations",
    "segmentation", "seg", "annotations", "annotation", "gt",
)  # fmt: skip
"""Usual names of the mask folder, in lower case; the first one whose masks match images is used."""

MAX_LINKS = 1000
"""Links to folders that are followed in one data folder: links between folders can multiply without end."""

MAX_DEPTH = 100
"""Levels of folders in a data folder."""

MAX_NAMES = 10_000
"""File names behind a link that are searched for a file that would be read."""

_ANNOTATION_SUFFIXES = (".json", ".xml", ".txt", ".csv", ".yaml", ".yml")

_SPLIT_OF = {
    "train": "train", "training": "train", "val": "val", "valid": "val", "validation": "val", "dev": "val",
    "test": "test", "testing": "test",
}  # fmt: skip


@dataclass(frozen=True)
class Listing:
    """The files of a folder.

    Attributes:
        files: sorted paths relative to the folder, with forward slashes; archives that were not looked into are files.
        links: links that point outside the folder and were not followed: path relative to the folder -> real path.
        hidden: hidden files and folders, which are left out.
        written: folders with files that this program wrote, such as runs and drawings; these files are left out.
    """

    files: list[str]
    links: dict[str, str]
    hidden: list[str] = field(default_factory=list)
    written: list[str] = field(default_factory=list)


def list_folder(
    root: str | os.PathLike[str], follow_links: bool = False, *, any_names: bool = False, archives: bool = False
) -> Listing:
    """List all files in ``root`` and its subfolders.

    Hidden files, ``IGNORED_NAMES`` and the output of this program (runs, drawings) are left out. A link to a folder
    inside ``root`` is not listed: its files are listed at their real path. With ``follow_links`` files behind links
    that point outside are listed below the name of the link, except those of a folder that is being listed already, so
    that loops end. ``any_names`` accepts names that are not UTF-8.

    An archive is a folder. Those in ``root`` are looked into if no file outside of them is an image: a backup next to
    its data must not double them. Of what they hold, files with the name of one outside are left out, but for images.
    With ``archives`` they are looked into in any case.

    Raises:
        DataError: more than ``MAX_LINKS`` links to folders, folders nested deeper than ``MAX_DEPTH``, or an image or
            annotation file whose name is not UTF-8.
        OSError: the folder cannot be read.
    """
    real_root = os.path.realpath(root)
    files: list[str] = []
    links: dict[str, str] = {}
    hidden: list[str] = []
    written: list[str] = []
    containers: list[str] = []
    followed = 0
    in_container = container_of(root) is not None

    def walk(folder: str, prefix: str, above: tuple[str, ...], in_drawings: bool = False) -> None:
        nonlocal followed
        if prefix.count("/") > MAX_DEPTH:
            raise DataError(f"{root}: folders are nested deeper than {MAX_DEPTH} ({prefix[:40]}...); pass an inner one")
        with scandir(folder) as entries:
            by_name = {entry.name: entry for entry in entries}
            own, predicted = own_files(by_name, folder), is_predicted(by_name)
            if in_drawings:
                own |= {*filter(is_drawing, by_name)}
            for _, entry in sorted(by_name.items()):
                if entry.name.startswith(".") or entry.name.lower() in IGNORED_NAMES:
                    hidden.append(prefix + entry.name)
                    continue
                if entry.name in own and not entry.is_dir():
                    if prefix not in written[-1:]:
                        written.append(prefix)
                    continue
                name, inner = prefix + entry.name, above
                if predicted and entry.name in OUTPUT_FOLDERS:
                    written.append(f"{name}/")
                    continue
                if entry.is_symlink():
                    real = os.path.realpath(entry.path)
                    if not is_inside(real, real_root):
                        if not follow_links:
                            links[name] = real
                            continue
                        inner = (*above, real)
                    if entry.is_dir():
                        if any(is_inside(real, listed) or is_inside(listed, real) for listed in above):
                            continue
                        followed += 1
                        if followed > MAX_LINKS:
                            raise DataError(f"{root}: more than {MAX_LINKS} links to folders; pass the real folder")
                if entry.is_dir():
                    walk(entry.path, name + "/", inner, in_drawings or (predicted and entry.name == DRAWINGS))
                elif entry.is_file():
                    if not any_names:
                        _check_name(name, root)
                    files.append(name)
                    if not in_container and has_container_suffix(name):
                        containers.append(name)

    walk(os.fspath(root), "", (real_root,))
    if containers and (archives or not any(map(is_image, files))):
        outside, files, in_container = sorted({*files} - {*containers}), [], True
        for name in containers:
            walk(os.path.join(root, name), name + "/", (real_root,))  # noqa: PTH118
        files = [*outside, *_new_names(outside, files)]
    return Listing(sorted(files), links, hidden, _outermost(written))


def _new_names(outside: list[str], inside: list[str]) -> list[str]:
    """The files in containers without those, but for images, that have the name of a file outside of them."""
    known = {file.rpartition("/")[2] for file in outside}
    return [file for file in inside if is_image(file) or file.rpartition("/")[2] not in known]


def _outermost(prefixes: list[str]) -> list[str]:
    """The folders among ``prefixes`` (``""``, ``a/``, ``a/b/``) that are in no other but the root, which is ``.``."""
    folders: list[str] = []
    for prefix in sorted({*prefixes}):
        if not folders or not folders[-1] or not prefix.startswith(folders[-1]):
            folders.append(prefix)
    return [folder.rstrip("/") or "." for folder in folders]


def _check_name(name: str, root: str | os.PathLike[str]) -> None:
    """Names are written to JSON, XML and text, which are UTF-8; other files with such names do not matter."""
    if not name.isascii() and name.lower().endswith(IMAGE_SUFFIXES + _ANNOTATION_SUFFIXES):
        try:
            name.encode()
        except UnicodeEncodeError:
            raise DataError(
                f"{root}: the name {os.fsencode(name)!r} is not UTF-8 text, as in archives of other systems; rename it "
                "(such as with convmv -f latin1 -t utf8), or unpack the archive with its encoding (unzip -O cp932)"
            ) from None


def list_files(
    root: str | os.PathLike[str], follow_links: bool = False, is_read: Callable[[str], bool] | None = None
) -> list[str]:
    """The files of :func:`list_folder`; links that point outside ``root`` are left out.

    Args:
        root: the folder.
        follow_links: list the files behind such links, too.
        is_read: whether the caller would read a file with this relative path; None: it reads no other file.

    Raises:
        DataError: a link that is not followed leads to a file for which ``is_read`` is true.
    """
    listing = list_folder(root, follow_links)
    for link, real in listing.links.items():
        names = (f"{link}/{name}" for name in _names_in(real)) if Path(real).is_dir() else iter([link])
        if is_read is not None and any(map(is_read, names)):
            raise DataError(
                f"{root}: the link {link} points outside this folder, to {real}, and is not followed; pass "
                "--follow-links, or copy the files into this folder"
            )
    return listing.files


def _names_in(folder: str) -> Iterator[str]:
    """Names of files below a folder, at most ``MAX_NAMES``; no file is opened and no link followed."""
    names = (
        os.path.relpath(os.path.join(parent, name), folder).replace(os.sep, "/")  # noqa: PTH118
        for parent, _, inner in os.walk(folder)
        for name in inner
    )
    return islice(names, MAX_NAMES)


WRITTEN = "folder with output of this program, which is left out"
"""Kind of note for each of ``Listing.written``."""


def is_inside(real: str, folder: str) -> bool:
    """Whether a real path is a real folder or below it."""
    return real == folder or real.startswith(folder.rstrip(os.sep) + os.sep)


def links_hint(links: Mapping[str, str]) -> str:
    """What to do about links that were not followed, for a message about missing files; "" if there are none."""
    if not links:
        return ""
    link, real = next(iter(links.items()))
    more = f" and {len(links) - 1} more" if len(links) > 1 else ""
    return f"; links to other folders are not followed ({link} to {real}{more}): pass --follow-links to follow them"


def is_image(name: str) -> bool:
    """Whether a file is an image, by its suffix; ``x.boxes.npy`` is an annotation."""
    return name.lower().endswith(IMAGE_SUFFIXES) and not is_target(name)


def split_of(name: str) -> str:
    """The split (train, val, test) that a folder name stands for (train2017, Valid, train.zip); "" if none."""
    return _SPLIT_OF.get(folder_word(name).rstrip("0123456789_-"), "")


def folder_title(name: str) -> str:
    """The name of a folder, which may be a path; of an archive without its suffix."""
    name = name.rpartition("/")[2]
    length = max((len(suffix) for suffix in CONTAINER_SUFFIXES if name.lower().endswith(suffix)), default=0)
    return name[: len(name) - length]


def folder_word(name: str) -> str:
    """:func:`folder_title` in lower case."""
    return folder_title(name).lower()


def without_archives(file: str) -> str:
    """A path as if its archives were unpacked where they are: ``a.zip/images/1.jpg`` becomes ``images/1.jpg``."""
    if not any(suffix in file.lower() for suffix in CONTAINER_SUFFIXES):
        return file
    return "/".join(part for part in file.split("/") if not has_container_suffix(part))


def with_unpacked_archives(file: str) -> str:
    """A path as if each archive was unpacked into a folder: ``a.zip/1.jpg`` becomes ``a/1.jpg``."""
    if not any(suffix in file.lower() for suffix in CONTAINER_SUFFIXES):
        return file
    return "/".join(map(folder_title, file.split("/")))


def subfolders(files: list[str]) -> dict[str, list[str]]:
    """Group files by their top folder, as paths relative to it; files without a folder are under "". An archive that
    contains only one folder is that folder, ``images.zip/images``."""
    files_of: dict[str, list[str]] = {}
    for folder, inner in _by_top_folder(files).items():
        below = _by_top_folder(inner) if has_container_suffix(folder) else {}
        if len(below) == 1 and "" not in below:
            [(only, inner)] = below.items()
            folder = f"{folder}/{only}"
        files_of[folder] = inner
    return files_of


def _by_top_folder(files: list[str]) -> dict[str, list[str]]:
    files_of: dict[str, list[str]] = {}
    for file in files:
        folder, slash, rest = file.partition("/")
        files_of.setdefault(folder if slash else "", []).append(rest if slash else folder)
    return files_of


def key_of(file: str) -> str:
    """A file's path without its suffix, Unicode-normalized: equal for an image and its mask."""
    folder, slash, name = file.rpartition("/")
    return unicodedata.normalize("NFC", f"{folder}{slash}{Path(name).stem}")
