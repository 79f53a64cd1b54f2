"""Image folders: one folder per class."""

from __future__ import annotations

from detseg.annotations.formats.folders.read import find_class_folders, read_class_folders
from detseg.annotations.formats.format import Format

FORMAT = Format(
    name="folders",
    find=find_class_folders,
    read=read_class_folders,
    write=None,
    suffixes=(),
    help="<class>/<image>, or train/<class>/<image> and val/<class>/<image>, with two or more classes",
)
