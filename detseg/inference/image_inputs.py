"""Find the image files in the paths passed to a command."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import BinaryIO

from detseg.annotations.listing import IGNORED_NAMES, WRITTEN, is_image, is_inside, links_hint, list_folder
from detseg.annotations.own_files import DRAWINGS, is_drawing
from detseg.annotations.repair_log import RepairLog
from detseg.errors import DataError
from detseg.images import IMAGE_SUFFIXES
from detseg.inference.input_paths import expand_inputs
from detseg.media.files import container_of, is_dir, is_file
from detseg.runtime.missing_path import missing_path
from detseg.short_text import as_unicode, one_line, printable_name


def find_images(
    inputs: Sequence[str],
    notes: RepairLog,
    follow_links: bool = False,
    output: str | os.PathLike[str] | None = None,
    stdin: BinaryIO | None = None,
) -> list[tuple[Path, str]]:
    """(path, name) of every image file in ``inputs`` or in their folders, sorted; names are relative to the folder.

    Files of the same name in different folders are named by their paths relative to the folder that contains them all.
    In names, bytes that are not UTF-8 are escaped. Every name occurs once.

    Args:
        inputs: files, folders, patterns and "-", see :func:`~detseg.inference.input_paths.expand_inputs`.
        notes: files in the folders that are left out are noted.
        follow_links: follow links in the folders that point outside.
        output: folder whose drawings are left out, like all output of this program.
        stdin: what "-" reads instead of standard input.

    A file that does not exist is an error, except in a list: it is found when it is opened, and costs only itself.

    Raises:
        FileNotFoundError: a path does not exist.
        DataError: no image is found.
    """
    paths = expand_inputs(inputs, stdin)
    several = sum(is_dir(item.path) for item in paths) > 1 or len(inputs) > 1
    images: list[tuple[Path, str]] = []
    links: dict[str, str] = {}
    written: list[str] = []
    has_images = any(entry.origin == "pattern" and is_image(entry.path.name) for entry in paths)

    def is_backup(path: Path) -> bool:
        """An archive that a pattern matches together with images, as in a folder."""
        return has_images and container_of(path) == (str(path), "")

    for item, origin in ((entry.path, entry.origin) for entry in paths):
        if is_dir(item) and not (origin == "pattern" and is_backup(item)):
            prefix = f"{item.name}/" if several else ""  # with several folders, names include the folder
            listing = list_folder(item, follow_links, any_names=True)
            drawings = _drawings(item, listing.files, output)
            images.extend(
                (item / file, prefix + file) for file in listing.files if is_image(file) and file not in drawings
            )
            for file in listing.files:
                if not is_image(file):
                    notes.add("file without the suffix of an image left out", printable_name(prefix + file))
            for link, real in listing.links.items():
                kind = "link to another folder not followed, pass --follow-links"
                notes.add(kind, printable_name(f"{prefix}{link} to {real}"))
            for name in listing.hidden:
                is_folder = is_dir(item / name) and Path(name).name.lower() not in IGNORED_NAMES
                if is_folder or is_image(name):
                    notes.add("hidden file or folder left out", printable_name(prefix + name))
            own = sorted({*listing.written, *([min(drawings).rpartition("/")[0]] if drawings else [])})
            written.extend(printable_name(f"{prefix}{folder}") for folder in own)
            links |= listing.links
        elif origin == "pattern" and not is_image(item.name):
            notes.add("file without the suffix of an image left out", printable_name(str(item)))
        elif is_file(item) or origin == "list":
            images.append((item, item.name))
        else:
            raise missing_path(item)
    for folder in written:
        notes.add(WRITTEN, folder)
    if not images:
        own_hint = f"; output of this program is not read ({', '.join(written[:5])})" * bool(written)
        raise DataError(
            f"{one_line(', '.join(inputs))}: no images found; supported suffixes: {', '.join(sorted(IMAGE_SUFFIXES))}"
            f"{own_hint}{links_hint(links)}"
        )
    return _with_distinct_names(images, notes)


def _drawings(root: Path, files: list[str], output: str | os.PathLike[str] | None) -> set[str]:
    """The drawings in ``output`` among the files of a folder, also if nothing else says that ``predict`` wrote them."""
    top = None if output is None else os.path.realpath(Path(output) / DRAWINGS)
    real_root = os.path.realpath(root)
    if top is None or not is_inside(top, real_root) or top == real_root:
        return set()
    start = os.path.relpath(top, real_root).replace(os.sep, "/") + "/"
    return {file for file in files if file.startswith(start) and is_drawing(file)}


def _with_distinct_names(images: list[tuple[Path, str]], notes: RepairLog) -> list[tuple[Path, str]]:
    """The images with names of valid Unicode of which none occurs twice; a file that was passed twice is left out."""
    images = [(path, as_unicode(name)) for path, name in images]
    name, count = Counter(name for _, name in images).most_common(1)[0]
    if count == 1:
        return images
    absolute = [Path(os.path.abspath(path)) for path, _ in images]  # noqa: PTH100  (resolve follows links)
    try:
        base = Path(os.path.commonpath([path.parent for path in absolute]))
    except ValueError:
        raise DataError(f"{name} occurs twice, on different drives; predict them in two runs") from None
    notes.add(
        f"file name that occurs twice; names in the results are relative to {printable_name(str(base))}",
        printable_name(name),
    )
    path_of: dict[str, Path] = {}
    for (path, _), full in zip(images, absolute, strict=True):
        name, number = as_unicode(full.relative_to(base).as_posix()), 2
        if name in path_of and Path(os.path.abspath(path_of[name])) == full:  # noqa: PTH100
            notes.add("file that was passed twice is predicted once", printable_name(name))
            continue
        while name in path_of:  # names that are equal only after the escape
            name = full.relative_to(base).with_stem(f"{as_unicode(full.stem)}~{number}").as_posix()
            name, number = as_unicode(name), number + 1
        path_of[name] = path
    return [(path, name) for name, path in path_of.items()]
