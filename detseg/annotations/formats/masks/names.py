"""Read the names (and colours) of mask values from a text file beside the masks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from detseg.annotations.formats.masks.values import IGNORE
from detseg.annotations.formats.shared.labelmap import parse_colour, parse_labelmap
from detseg.annotations.formats.shared.text_file import read_text
from detseg.annotations.formats.shared.value_counts import ValueCounts
from detseg.errors import DataError
from detseg.media.files import is_dir, is_file, iterdir

NAME_FILES = ("labelmap.txt", "class_names.txt", "codes.txt", "classes.txt")
"""Files of CVAT, LabelMe, CamVid and YOLO tools with one name per line, the most specific first."""

BACKGROUND = "background"

UNUSED = (
    BACKGROUND, "_background_", "__background__", "bg", "void", "ignore", "ignored", "__ignore__", "_ignore_",
    "unlabeled", "unlabelled",
)  # fmt: skip
"""Names, in lower case, of pixels without a class."""


@dataclass(frozen=True)
class ValueNames:
    """Names in the order of a file, and the value of each colour (``red << 16 | green << 8 | blue``) if it has colours.

    With colours, values are positions in ``names``, and 0 is black.
    """

    file: str
    names: tuple[str, ...]
    colours: dict[int, int] = field(default_factory=dict)

    @property
    def classes(self) -> tuple[str, ...]:
        """The names that are not in ``UNUSED``."""
        return tuple(name for name in self.names if not is_unused(name))

    def by_value(self, counts: ValueCounts) -> tuple[str, ...] | None:
        """The names of the values 0, 1, 2, ...; None if there are other values than the file has names for.

        The first name is that of 0, unless the background is not named: if there is one value more than names, or if
        most pixels are 0.
        """
        values = [value for value in counts.present if value < len(self.names) or value != IGNORE]
        highest = max(values, default=0)
        if highest == 0 or highest > len(self.names):
            return None
        if self.colours or is_unused(self.names[0]):
            return self.names if highest < len(self.names) else None
        if highest == len(self.names) or 2 * counts.pixels[0] >= counts.pixels.sum():
            return (BACKGROUND, *self.names)
        return self.names


def is_unused(name: str) -> bool:
    return name.lower() in UNUSED


def read_value_names(root: Path, folders: Sequence[str]) -> ValueNames | None:
    """The names in the first of ``NAME_FILES`` in one of the folders or the folder above it, inside ``root``."""
    places = dict.fromkeys([*folders, *(_parent(folder) for folder in folders), ""])
    for name in NAME_FILES:
        for place in places:
            entries = sorted(iterdir(root / place)) if is_dir(root / place) else []
            file = next((entry for entry in entries if entry.name.lower() == name and is_file(entry)), None)
            if file is not None:
                shown = PurePosixPath(place, file.name).as_posix()
                if not file.resolve().is_relative_to(root.resolve()):
                    raise DataError(f"{shown}: a link that points outside {root}; copy the file into it")
                return _parse(read_text(file, shown), shown)
    return None


def _parse(text: str, file: str) -> ValueNames | None:
    listed = parse_labelmap(text)
    if not listed:
        names = [line.strip() for line in text.splitlines() if line.strip() and not line.startswith("#")]
        names = names[1:] if names[:1] == ["__ignore__"] else names  # LabelMe lists it with the value -1
        _check_unique(names, file)
        return ValueNames(file, tuple(names)) if names else None
    _check_unique([name for name, _ in listed], file)
    if not all(colour for _, colour in listed):
        return ValueNames(file, tuple(name for name, _ in listed))
    entries = sorted(
        ((name, parse_colour(colour, name, file)) for name, colour in listed), key=lambda entry: entry[1] > 0
    )
    if entries[0][1] != 0:
        entries = [(BACKGROUND, 0), *entries]
    colours = {colour: value for value, (_, colour) in enumerate(entries)}
    if len(colours) < len(entries):
        raise DataError(f"{file}: two names have the same colour; give each class its own colour, as in the masks")
    return ValueNames(file, tuple(name for name, _ in entries), colours)


def _check_unique(names: Sequence[str], file: str) -> None:
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise DataError(f"{file}: the name {twice[0]!r} is there twice; every value has its own name: rename one")


def _parent(folder: str) -> str:
    return folder.rpartition("/")[0]
