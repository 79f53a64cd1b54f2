"""Class names that contain commas, equals signs and quotes are selected and renamed, in every format."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.real_exports import cases_rename as sets_of
from tests.real_exports.case import Case, Refused, Right

NAMES = {"object": "bolt, M6", "M6": "a=b", "nut": "nut"}


def with_commas(write: Callable[[Path], object]) -> Callable[[Path], object]:
    """The writer of a set whose classes have awkward names."""

    def write_set(root: Path) -> None:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(sets_of, "OBJECTS", [(NAMES[name], box) for name, box in sets_of.OBJECTS])
            write(root)

    return write_set


def csv(root: Path) -> None:
    rows = [
        f'{image},{",".join(map(str, box))},"{NAMES[name]}"'
        for image in ("a.png", "b.png")
        for name, box in sets_of.OBJECTS
    ]
    sets_of.sets.csv(root, "filename,xmin,ymin,xmax,ymax,class", rows)


def masks(root: Path) -> None:
    sets_of.masks(root)
    names = ("background", *NAMES.values())
    sets_of.sets.put(root / "masks" / "classes.txt", "".join(f"{name}\n" for name in names))


WRITERS = {name: with_commas(write) for name, write in sets_of.WRITERS.items()} | {"csv": csv, "masks": masks}
LEFT_OUT = "(instance|object) of an unselected class left out"


def selected(*names: str) -> dict[str, sets_of.Boxes]:
    return sets_of.both([(NAMES[name], box) for name, box in sets_of.OBJECTS if NAMES[name] in names])


CASES = [
    *(
        Case(
            f"--classes {text}",
            name,
            write,
            Right(selected("bolt, M6", *more), note=LEFT_OUT, options={"classes": text}),
        )
        for name, write in WRITERS.items()
        for text, more in (
            ("bolt, M6", ()),
            ('"bolt, M6",nut', ("nut",)),
            ("nut, bolt, M6", ("nut",)),
            ('["bolt, M6", "a=b"]', ("a=b",)),
        )
    ),
    *(
        Case(
            "--classes of half a name",
            name,
            write,
            Refused(
                "--classes has 1 names, for the values 1 to 1"
                if name == "masks"
                else r"""available classes: .*"bolt, M6".*in double quotes: --classes '"bolt, M6"'""",
                Right(selected("bolt, M6"), note=LEFT_OUT, options={"classes": '"bolt, M6"'}),
                options={"classes": "bolt"},
            ),
        )
        for name, write in WRITERS.items()
    ),
    *(
        Case(
            f"--rename {text}",
            name,
            write,
            Right(
                sets_of.both(sets_of.named(object="bolt", M6="=,")),
                note=sets_of.MASK_NOTE.get(name, ""),
                options={"rename": text},
            ),
        )
        for name, write in WRITERS.items()
        for text in ('bolt, M6=bolt,"a=b"="=,"', '{"bolt, M6": "bolt", "a=b": "=,"}', '"bolt, M6"=bolt,"a=b"="=,"')
    ),
]
