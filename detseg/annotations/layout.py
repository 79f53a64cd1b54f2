"""Detect the format of a data set: by file names first, then by the top-level keys of JSON files."""

from __future__ import annotations

from collections import Counter
from pathlib import Path, PurePosixPath

from detseg.annotations.formats import all_formats
from detseg.annotations.formats.format import Format, Layout
from detseg.annotations.groups import first_names
from detseg.annotations.listing import (
    IMAGE_FOLDERS,
    MASK_FOLDERS,
    folder_word,
    is_image,
    links_hint,
    list_folder,
    split_of,
    subfolders,
)
from detseg.annotations.not_a_data_set import check_path, folder_without_annotations, is_document
from detseg.annotations.other_tools import HEAD, SUFFIXES, find_other_tool, other_tool
from detseg.errors import DataError
from detseg.media.files import container_of, has_container_suffix, is_file, open_file

DEPTH = 3
"""Folder levels that are searched: a folder that contains only one folder is descended into."""


def find_format(data: str | Path, format: str | None = None, follow_links: bool = False) -> Layout:
    """Detect the format of a folder or an annotation file.

    Args:
        data: the folder or file.
        format: detect only this format.
        follow_links: follow links that point outside the folder.

    Raises:
        DataError: no known format (lists what the folder contains), an archive, an image, or several annotation files
            of the same split.
        OSError: no such folder or file, or a URL.
    """
    formats = all_formats.FORMATS if format is None else (all_formats.format_named(format),)
    data = Path(data)
    check_path(data)
    if is_file(data):
        return _file_layout(data, formats)
    listing = list_folder(data, follow_links)
    root, files = (data, listing.files) if format == "folders" else _unpacked(data, listing.files)
    for _ in range(DEPTH):
        for candidate in formats:
            detected = candidate.find(root, files)
            if detected is not None and not (detected.only_if_named and format is None):
                if candidate.name == "folders" and format is None:
                    _refuse_other_tool(data, listing.files, "; pass --format folders if the folders are the classes")
                return Layout(
                    candidate.name, detected.explanation, root, parts=detected.parts, written=tuple(listing.written)
                )
        folders = subfolders(files)
        if len(folders.keys() - {""}) != 1 or any(map(is_image, folders.get("", []))):
            break
        name = next(iter(folders.keys() - {""}))
        root, files = root / name, folders[name]
    _refuse_other_tool(data, listing.files)
    reason = folder_without_annotations(data, listing.files, [candidate.name for candidate in formats])
    message = f"{data}: no {format or 'known'} data set was found; "
    if reason:
        raise DataError(f"{message}{reason}")
    own = f", and output of this program, which is not read ({first_names(listing.written)})" * bool(listing.written)
    contents = f"it contains {_folder_contents(listing.files)}{own}{links_hint(listing.links)}"
    raise DataError(f"{message}{contents}; accepted formats:", listing=accepted())


def _unpacked(root: Path, files: list[str]) -> tuple[Path, list[str]]:
    """The folder to start in, with its files: an archive with only one folder is that folder, as if it was unpacked,
    and so is a folder with only such an archive. A folder whose name says what is in it stays."""
    folders = subfolders(files)
    names = folders.keys() - {""}
    is_archive = container_of(root) == (str(root), "")
    if len(names) != 1 or (folders.get("") and is_archive) or not all(map(is_document, folders.get("", []))):
        return root, files
    [name] = names
    archive, slash, only = ("", "", name) if is_archive else name.partition("/")
    if not is_archive and not has_container_suffix(archive):
        return root, files
    if split_of(only) or folder_word(only) in (*IMAGE_FOLDERS, *MASK_FOLDERS):
        return (root / archive, [f"{only}/{file}" for file in folders[name]]) if slash else (root, files)
    return root / name, folders[name]


def _refuse_other_tool(data: Path, files: list[str], remedy: str = "") -> None:
    """DataError if a file is of a tool whose files are not read."""
    tool = find_other_tool(data, files)
    if tool:
        raise DataError(f"{data}: {tool}{remedy}")


def accepted() -> str:
    """The list of accepted formats, for messages."""
    width = max(len(format.name) for format in all_formats.FORMATS) + 1
    return "\n".join(
        [
            *(f"  {format.name + ':':{width}} {format.help}" for format in all_formats.FORMATS),
            "pass --format to select the format, and --images if the images are in another folder",
        ]
    )


def _file_layout(path: Path, formats: tuple[Format, ...]) -> Layout:
    """The format of a single annotation file: the first with its suffix whose finder accepts the file, else the first
    with its suffix, whose reader reports what is wrong with it."""
    with open_file(path) as file:
        tool = other_tool(file.read(HEAD)) if path.suffix.lower() in SUFFIXES else ""
    if tool and not any(format.find(path.parent, [path.name]) for format in formats):
        raise DataError(f"{path}: {tool}")
    candidates = [format for format in formats if path.suffix.lower() in format.suffixes]
    if not candidates:
        name = formats[0].name if len(formats) == 1 else "known"
        raise DataError(f"{path}: a file must be a {name} annotation file; accepted formats:", listing=accepted())
    chosen = candidates[0]
    if len(candidates) > 1:
        chosen = next((format for format in candidates if format.find(path.parent, [path.name])), chosen)
    return Layout(chosen.name, f"{chosen.name} file {path.name}", path.parent, path.name)


def _folder_contents(files: list[str]) -> str:
    """The contents of a folder, for a message: number of files of each suffix, and subfolders."""
    suffixes = Counter(PurePosixPath(file).suffix.lower() or "no suffix" for file in files)
    counts = ", ".join(f"{count} x {suffix}" for suffix, count in suffixes.most_common(5)) or "no files"
    folders = sorted(subfolders(files).keys() - {""})
    return counts + (f" in the folders {first_names(folders)}" if folders else "")
