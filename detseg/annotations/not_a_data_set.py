"""Say in one line what to do with data that are not a data set: a compressed file, an image, or images only."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

from detseg.annotations.groups import first_names
from detseg.annotations.listing import MASK_FOLDERS, is_image
from detseg.errors import DataError
from detseg.media.files import container_of, has_container_suffix, is_dir, is_file, open_file
from detseg.runtime.missing_path import missing_path
from detseg.runtime.user_command import user_command

_COMPRESSED = (".gz", ".bz2", ".xz", ".zst")

_UNPACK = {
    ".7z": "7z x {file} -o{folder}",
    ".rar": "unrar x {file} {folder}/",
    ".tar.zst": "mkdir {folder} && tar -xf {file} -C {folder}",
    ".gz": "gunzip -k {file}",
    ".bz2": "bunzip2 -k {file}",
    ".xz": "unxz -k {file}",
    ".zst": "unzstd {file}",
}
"""Suffix of an archive or compressed file that is not read -> the command that unpacks it."""

_MAGIC = (
    (b"PK\x03\x04", ".zip"),
    (b"7z\xbc\xaf\x27\x1c", ".7z"),
    (b"Rar!\x1a\x07", ".rar"),
    (b"\x1f\x8b", ".tar.gz"),
    (b"BZh", ".tar.bz2"),
    (b"\xfd7zXZ\x00", ".tar.xz"),
)
"""First bytes of an archive without a suffix, and the suffix it would have."""

_TOOLS = "CVAT, LabelMe, Label Studio or VGG Image Annotator"


def check_path(data: Path) -> None:
    """Check that ``data`` may be a data set.

    Raises:
        DataError: an archive that is not read, a compressed file, or an image.
        FileNotFoundError: no such file or folder, or a URL.
    """
    if is_file(data):
        suffix = _archive_suffix(data)
        if has_container_suffix(suffix):
            named = data.with_name(data.name + suffix)
            raise DataError(f"{data}: an archive without its suffix; rename it to {named.name} and pass {named}")
        if suffix:
            raise DataError(f"{data}: {_unpack(data, suffix)}")
        if is_image(data.name):
            raise DataError(
                f"{data}: one image, not a data set; pass the folder that contains the images and their annotations "
                "(such as a COCO .json, a YOLO or Pascal VOC file for each image, or masks), or, for an image without "
                f"annotations, use a trained model: {user_command('predict', 'RUN', data)}"
            )
    elif not is_dir(data):
        raise missing_path(data)


def folder_without_annotations(data: Path, files: Sequence[str], formats: Sequence[str]) -> str:
    """What is missing in a folder without annotations, and what to do; "" if it contains other files too.

    Args:
        data: the folder.
        files: its files, relative to it.
        formats: those that were looked for.
    """
    images = [file for file in files if is_image(file)]
    archives = [file for file in files if _is_archive(file)]
    folders = {part.lower() for file in images for part in PurePosixPath(file).parts[:-1]}
    if len(images) + len(archives) + sum(map(is_document, files)) < len(files) or folders & {*MASK_FOLDERS}:
        return ""  # other files may be annotations with an error, and so may images in a folder of masks
    counted = f"{len(images)} image{'s' * (len(images) != 1)} and no annotations"
    if archives:
        names = f"{len(archives)} archive{'s' * (len(archives) != 1)} ({first_names(archives)})"
        if container_of(data):
            return f"it contains {counted}, but {names}; archives in an archive are not read: unpack {data}"
        if has_container_suffix(archives[0]):
            inner, outer = shlex.quote(str(data / archives[0])), shlex.quote(str(data))
            return (
                f"it contains {counted}, but {names}; pass the one that contains the annotations as the data, such as "
                f"{inner} --images {outer}"
            )
        return f"it contains {counted}, but {names}; unpack what contains the annotations, and pass {data} again"
    if not images:
        return ""
    path, others = shlex.quote(str(data)), "omit --format to look for the others, " if len(formats) == 1 else ""
    return (
        f"it contains {counted} in the format{'s' * (len(formats) != 1)} {', '.join(formats)}; "
        f"{others}label the images with a tool such as {_TOOLS} and export an accepted format, pass the annotation "
        f"file with --images {path} if it is elsewhere, put the images into a folder for each class, with two or more "
        "classes (one with --format folders), to train a classifier, or, for images without annotations, use a trained "
        f"model: {user_command('predict', 'RUN', data)}"
    )


def _is_archive(file: str) -> bool:
    return has_container_suffix(file) or file.lower().endswith(tuple(_UNPACK))


def _archive_suffix(path: Path) -> str:
    """The longest suffix of an archive that the name has, or of its content if it has none; "" for another file."""
    suffixes = [suffix for suffix in _UNPACK if path.name.lower().endswith(suffix)]
    if suffixes:
        return max(suffixes, key=len)
    if path.suffix:
        return ""
    with open_file(path) as file:
        head = file.read(262)
    if head[257:] == b"ustar":
        return ".tar"
    return next((suffix for magic, suffix in _MAGIC if head.startswith(magic)), "")


def _unpack(path: Path, suffix: str) -> str:
    """What kind of file it is, the command that unpacks it, and what to pass then."""
    has_suffix = path.name.lower().endswith(suffix)
    unpacked = path.with_name(path.name[: -len(suffix)] if has_suffix else f"{path.name}-unpacked")
    command = _UNPACK[suffix].format(file=shlex.quote(str(path)), folder=shlex.quote(str(unpacked)))
    if suffix in _COMPRESSED:
        return f"a compressed file, not a data set; unpack it ({command}) and pass {unpacked}"
    if unpacked.is_dir():
        return f"an archive, not a data set; unpack it and pass its folder, or {unpacked} if it was unpacked there"
    return f"an archive, not a data set; unpack it ({command}) and pass the folder {unpacked}"


def is_document(file: str) -> bool:
    """Whether a file is neither data nor annotations: a README, a license, a page."""
    path = PurePosixPath(file)
    if is_image(file) or _is_archive(file):
        return False
    return path.name.lower().startswith(("readme", "license", "licence")) or path.suffix.lower() in (".md", ".pdf")
