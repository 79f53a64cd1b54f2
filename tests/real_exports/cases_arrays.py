"""What folders of NumPy arrays hold: missing arrays, odd shapes, NaN, float16, pickles."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from tests.real_exports import sets
from tests.real_exports.case import Case, Refused, Right

BOX = (20.0, 20.0, 50.0, 50.0)
BOXES = np.array([BOX], np.float32)
RIGHT = {"1.npy": [("bolt", BOX)]}
NAN = np.nan


def written(names: str = "nut\nbolt\n", **targets: Any) -> Callable[[Path], None]:
    """A function that writes one image with its targets, below folders."""

    def write(root: Path) -> None:
        sets.arrays(root, {"a/b/1": targets})
        if names:
            sets.put(root / "classes.txt", names)

    return write


def case(kind: str, write: Callable[[Path], object], expected: Right | Refused) -> Case:
    return Case(kind, "arrays", write, expected)


def pickled(root: Path) -> None:
    written(boxes=BOXES)(root)
    np.save(root / "a/b/1.label.npy", np.array([{"a": 1}], dtype=object), allow_pickle=True)


def without_image(root: Path) -> None:
    written(boxes=BOXES, label=[1])(root)
    np.save(root / "a/2.boxes.npy", BOXES)


def save(name: str, values: Any) -> Callable[[Path], None]:
    return lambda root: np.save(root / name, np.asarray(values))


MASKS = np.zeros((1, sets.HEIGHT, sets.WIDTH), np.bool_)
MASKS[0, 20:50, 20:50] = True
POINTS = np.array([[[20, 20], [50, 50], [NAN, NAN]]])
CASES = [
    case("names of labels", written(boxes=BOXES, label=[1]), Right(RIGHT)),
    case("one label for all", written(boxes=BOXES, label=1), Right(RIGHT)),
    case("labels as text", written("", boxes=BOXES, labels=np.array(["bolt"])), Right(RIGHT)),
    case("no labels", written("", boxes=BOXES), Right({"1.npy": [("object", BOX)]})),
    case("numbers as labels", written("", boxes=BOXES, label=np.array([7.0])), Right({"1.npy": [("7", BOX)]})),
    case(
        "missing and empty arrays",
        lambda root: (
            written(boxes=BOXES, label=[1])(root),
            sets.arrays(root, {"c/2": {}, "c/3": {"boxes": np.zeros((0, 4)), "label": np.zeros(0, int)}}),
        ),
        Right({**RIGHT, "2.npy": [], "3.npy": []}),
    ),
    case("masks", written(masks=MASKS, label=[1]), Right(RIGHT, masks=1)),
    case("landmarks with NaN", written(landmarks=POINTS, label=[1]), Right(RIGHT)),
    case(
        "float16 over 2,048",
        written(boxes=BOXES, label=[1], landmarks=np.array([[[20, 20], [3000, 30]]], np.float16)),
        Right(RIGHT, "1 x float16 coordinates over 2,048.*up to 3000"),
    ),
    case(
        "no label for an object",
        written(boxes=np.repeat(BOXES, 2, axis=0), label=[1, -1]),
        Right(RIGHT, "1 x instance without a class dropped", lost="1"),
    ),
    case(
        "a pickle",
        pickled,
        Refused(r"1.label.npy: an array of Python objects", Right(RIGHT), save("a/b/1.label.npy", [1])),
    ),
    case(
        "NaN in a box",
        written(boxes=[[20, 20, NAN, 50]], label=[1]),
        Refused(r"1.npy, object 0 .*not all of these numbers are finite", Right(RIGHT), save("a/b/1.boxes.npy", BOXES)),
    ),
    case(
        "boxes with classes in them",
        written(boxes=[[20, 20, 50, 50, 1]], label=[1]),
        Refused(r"1.boxes.npy: shape \[1, 5\], expected \[number, 4\]", Right(RIGHT), save("a/b/1.boxes.npy", BOXES)),
    ),
    case(
        "other numbers of labels",
        written(boxes=BOXES, label=[1, 1]),
        Refused("other numbers of objects: 1 in a/b/1.boxes.npy, 2 in", Right(RIGHT), save("a/b/1.label.npy", [1])),
    ),
    case(
        "a label without a name",
        written(boxes=BOXES, label=[5]),
        Refused("the label 5 has no name: the list of classes has 2", Right(RIGHT), save("a/b/1.label.npy", [1])),
    ),
    case(
        "arrays without an image",
        without_image,
        Refused(
            r"1 of 2 arrays have no image.*a/2.boxes.npy", Right(RIGHT), lambda root: (root / "a/2.boxes.npy").unlink()
        ),
    ),
]
