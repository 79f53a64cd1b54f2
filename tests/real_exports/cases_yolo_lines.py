"""YOLO lines with commas, track ids, corners, pixels and class names."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from tests.real_exports import sets
from tests.real_exports.case import Box, Case, Refused, Right

BOXES: list[Box] = [(10.0, 8.0, 40.0, 30.0), (50.0, 20.0, 80.0, 60.0), (30.0, 40.0, 60.0, 70.0)]
OBJECTS = {name: [("bolt", box) for box in BOXES] for name in ("1.jpg", "2.jpg")}
W, H = sets.WIDTH, sets.HEIGHT


def centred(box: Box) -> list[str]:
    x1, y1, x2, y2 = box
    return [f"{value:.6f}" for value in ((x1 + x2) / 2 / W, (y1 + y2) / 2 / H, (x2 - x1) / W, (y2 - y1) / H)]


def lines(change: Callable[[Box], str]) -> Callable[[Path], None]:
    """Two images with a line for each of ``BOXES``."""
    return lambda root: sets.yolo(root, {name: [change(box) for box in BOXES] for name in OBJECTS}, ["bolt", "nut"])


def joined(separator: str, box: Box) -> str:
    return separator.join(["0", *centred(box)])


def good(root: Path) -> None:
    lines(lambda box: joined(" ", box))(root)


def corners(box: Box) -> str:
    return f"0 {box[0] / W} {box[1] / H} {box[2] / W} {box[3] / H}"


def top_left(box: Box) -> str:
    return f"0 {box[0] / W} {box[1] / H} {(box[2] - box[0]) / W} {(box[3] - box[1]) / H}"


def pixels(box: Box) -> str:
    return f"0 {(box[0] + box[2]) / 2} {(box[1] + box[3]) / 2} {box[2] - box[0]} {box[3] - box[1]}"


def without_config(write: Callable[[Path], object]) -> Callable[[Path], None]:
    def write_labels(root: Path) -> None:
        write(root)
        (root / "data.yaml").rename(root / "classes.txt")
        (root / "classes.txt").write_text("bolt\nnut\n")

    return write_labels


def read(kind: str, change: Callable[[Box], str], note: str) -> list[Case]:
    right = Right(OBJECTS, f"6 x {note}")
    write = lines(change)
    return [Case(kind, "yolo", write, right), Case(f"{kind}, no data.yaml", "yolo", without_config(write), right)]


def refused(kind: str, change: Callable[[Box], str], message: str) -> list[Case]:
    expected, write = Refused(message, Right(OBJECTS), good), lines(change)
    return [Case(kind, "yolo", write, expected), Case(f"{kind}, no data.yaml", "yolo", without_config(write), expected)]


def tracked(boxes: Sequence[Box]) -> Callable[[Box], str]:
    return lambda box: f"{joined(' ', box)} {boxes.index(box) + 1}"


CASES = [
    *read("commas", lambda box: joined(",", box), "line with commas between the numbers"),
    *read("commas and blanks", lambda box: joined(", ", box), "line with commas between the numbers"),
    *read("semicolons", lambda box: joined(";", box), "line with semicolons"),
    *read("decimal commas", lambda box: joined(" ", box).replace(".", ","), "line with decimal commas"),
    *read("semicolons and decimal commas", lambda box: joined("; ", box).replace(".", ","), "line with semicolons"),
    *read("track ids", tracked(BOXES), "track id after the box ignored"),
    *refused(
        "scores", lambda box: f"{joined(' ', box)} 0.87", "6 fields; .* a score are predictions.* in 6 of 6 lines"
    ),
    *refused("scores and track ids", lambda box: f"{joined(' ', box)} 0.87 3", "score and a track id are predictions"),
    *refused("corners", corners, r"boxes extend beyond the image .* they look like corners x1, y1, x2, y2"),
    *refused("pixels", pixels, "6 lines cannot be read: 6 x coordinate that is not normalized.* divide pixels"),
    *refused("class names", lambda box: f"bolt {' '.join(centred(box))}", "6 x class .* 'bolt' is not a number"),
]
