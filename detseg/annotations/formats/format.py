"""Describe one annotation format: the joint between a folder in formats/ and the rest of the package."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from detseg.annotations.formats.shared.write_result import WriteResult
from detseg.annotations.table import AnnotationTable

Parts = tuple[tuple[str, ...], ...]
"""What a finder found, in terms of its format: COCO files and their splits, pairs of image and mask folders, ..."""


@dataclass(frozen=True)
class Detected:
    """Result of a finder.

    Attributes:
        explanation: one line for messages: what was found, and where.
        parts: what the reader of the format needs besides the folder; see the finder.
        only_if_named: the folder may as well be something else: use this only if the user names the format.
    """

    explanation: str
    parts: Parts = ()
    only_if_named: bool = False


@dataclass(frozen=True)
class Layout:
    """The format and contents of a data folder.

    Attributes:
        format: name of the format.
        explanation: one line for messages: what was found, and where.
        root: the folder that all names are relative to: the data folder, or the only folder inside it.
        file: the annotation file if the data is a single file; "" for a folder.
        parts: see :class:`Detected`; empty for a single file.
        written: folders in the data folder with output of this program, which is not read.
    """

    format: str
    explanation: str
    root: Path
    file: str = ""
    parts: Parts = ()
    written: tuple[str, ...] = ()

    @property
    def path(self) -> Path:
        """The annotation file, or the folder."""
        return self.root / self.file if self.file else self.root


@dataclass(frozen=True)
class ReadOptions:
    """What a user may state about the data; see ``detseg.annotations.read``."""

    images: str | os.PathLike[str] | None = None
    mask_values: str | None = None
    one_based: bool = False
    classes: Sequence[str] | None = None
    bad_instances: str = "drop"
    follow_links: bool = False
    class_attribute: str | None = None
    missing_images: str = "error"

    @property
    def of_every_reader(self) -> dict[str, Any]:
        """The keyword arguments of :class:`Reader`, which the reader of each format with annotation files takes."""
        names = ("images", "classes", "bad_instances", "follow_links", "missing_images")
        return {name: getattr(self, name) for name in names}


class Reader(Protocol):
    """The contract of the functions ``read_NAME``; their docstrings state what is particular to the format."""

    def __call__(
        self,
        data: str | os.PathLike[str],
        images: str | os.PathLike[str] | None = None,
        *,
        classes: Sequence[str] | None = None,
        bad_instances: str = "drop",
        split: str = "",
        follow_links: bool = False,
        missing_images: str = "error",
    ) -> AnnotationTable:
        """Read the annotations and the headers of the images; no pixels.

        Args:
            data: the data folder, or one annotation file.
            images: image folder, if the images are neither next to the annotations nor below them.
            classes: names that become labels 1, 2, ... in this order; instances of other classes are left out with a
                note, their images are kept.
            bad_instances: "drop" or "error", see :class:`detseg.annotations.builder.TableBuilder`.
            split: one split for all images; "" takes the splits from the files, as the format defines them.
            follow_links: follow links in the folders that point outside; else one that would be read is an error.
            missing_images: "error", or "drop" to leave images without a file out with a note, up to half of them.

        Raises:
            DataError: input that cannot be used, with the file, the position in it, the value and the remedy.
            OSError: a file or folder is missing or cannot be opened.
        """


class AttributeReader(Protocol):
    """A :class:`Reader` in whose format an object may have several attributes.

    Args:
        class_attribute: name of the attribute or column that states the class; objects without a value for it have no
            class. None: the usual one.
    """

    def __call__(
        self,
        data: str | os.PathLike[str],
        images: str | os.PathLike[str] | None = None,
        *,
        classes: Sequence[str] | None = None,
        class_attribute: str | None = None,
        bad_instances: str = "drop",
        split: str = "",
        follow_links: bool = False,
        missing_images: str = "error",
    ) -> AnnotationTable: ...


@dataclass(frozen=True)
class Format:
    """One annotation format.

    Attributes:
        name: the value of ``--format``.
        find: from a folder and all files in it (see ``list_files``), what it contains in this format; None if nothing.
            Names are checked first and files are opened only as far as needed; only files that were found are named.
        read: read what was found, with the options of the user.
        write: write a table into a new folder, without the images; None if the format cannot be written.
        suffixes: of a single file that can be passed as the data, in lower case; the first format in
            ``all_formats.FORMATS`` with a suffix is used if no finder accepts the file.
        help: one line for the list of accepted formats.
    """

    name: str
    find: Callable[[Path, list[str]], Detected | None]
    read: Callable[[Layout, ReadOptions], AnnotationTable]
    write: Callable[[AnnotationTable, Path], WriteResult] | None
    suffixes: tuple[str, ...]
    help: str


def reads_path(reader: Reader) -> Callable[[Layout, ReadOptions], AnnotationTable]:
    """``Format.read`` for a reader that needs no more than the folder or file."""

    def read(layout: Layout, options: ReadOptions) -> AnnotationTable:
        return reader(layout.path, **options.of_every_reader)

    return read


def reads_attribute(reader: AttributeReader) -> Callable[[Layout, ReadOptions], AnnotationTable]:
    """``Format.read`` for a reader of a format in which the user may state what holds the class."""

    def read(layout: Layout, options: ReadOptions) -> AnnotationTable:
        return reader(layout.path, class_attribute=options.class_attribute, **options.of_every_reader)

    return read


def refused_images(layout: Layout) -> str:
    """The message for an image folder that was passed with a format without annotation files."""
    return (
        f"{layout.root}: {layout.explanation}; in this format the images are next to their annotations: omit "
        "--images, or pass --format masks if the masks are in this folder"
    )
