"""What real exports of Label Studio hold: several annotators, skipped tasks, predictions, rotation, masks."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.real_exports import sets
from tests.real_exports.case import Case, Refused, Right

BOX = (20.0, 20.0, 50.0, 50.0)
RIGHT = {"1.jpg": [("bolt", BOX)]}
BOLT = sets.rectangle("bolt", *BOX)
OTHER = sets.rectangle("bolt", 1, 1, 9, 9)
RLE = [0, 0, 108, 0, 57, 27, 252]
"""The header for 96 x 72 pixels, and the beginning of a run."""


def tasks(*items: dict[str, Any], images: tuple[str, ...] = ("1.jpg",)) -> Callable[[Path], None]:
    """A function that writes tasks; ids and the sizes of regions are added."""

    def write(root: Path) -> None:
        for name in images:
            sets.image(root / "images" / name)
        size = {"original_width": sets.WIDTH, "original_height": sets.HEIGHT}
        for item in items:
            for annotation in item.get("annotations") or []:
                annotation["result"] = [{**size, **result} for result in annotation.get("result") or []]
        sets.put(root / "project-1.json", json.dumps([{"id": row, **item} for row, item in enumerate(items, 1)]))

    return write


def task(*annotations: dict[str, Any], image: str = "1.jpg", **more: Any) -> dict[str, Any]:
    return {"data": {"image": image}, "annotations": list(annotations), **more}


def case(kind: str, write: Callable[[Path], None], expected: Right | Refused) -> Case:
    return Case(kind, "labelstudio", write, expected)


def result(*results: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"result": list(results), **more}


def choice(name: str, *choices: str) -> dict[str, Any]:
    return {"type": "choices", "from_name": name, "value": {"choices": list(choices)}}


def without_sizes(root: Path) -> None:
    sets.image(root / "images/1.jpg")
    sets.put(root / "project-1.json", json.dumps([{"id": 1, **task(result(BOLT))}]))


def min_rows(*rows: dict[str, Any]) -> Callable[[Path], None]:
    def write(root: Path) -> None:
        sets.image(root / "images/1.jpg")
        usual = {"image": "/data/upload/1/1.jpg", "id": 1, "annotator": 1, "annotation_id": 1, "lead_time": 2.5}
        sets.put(root / "project-1-min.json", json.dumps([{**usual, **row} for row in rows]))

    return write


def region(label: str, x1: float, y1: float, x2: float, y2: float) -> dict[str, Any]:
    size = {"original_width": sets.WIDTH, "original_height": sets.HEIGHT}
    return {**sets.rectangle(label, x1, y1, x2, y2)["value"], **size}


TURNED = sets.rectangle("bolt", 50, 20, 80, 50, rotation=90)
SEPARATE = [
    {"id": "a", "type": "rectangle", "value": {**BOLT["value"], "rectanglelabels": None}},
    {"id": "a", "type": "labels", "value": {**BOLT["value"], "rectanglelabels": None, "labels": ["bolt"]}},
    {"id": "a", "type": "textarea", "value": {"text": ["a remark"]}},
]
RELATED = [{**BOLT, "id": "a"}, {"from_id": "a", "to_id": "a", "type": "relation", "direction": "right"}]
NO_SHAPE = "result that is neither shape nor choice of an image left out"
CASES = [
    case(
        "several annotators",
        tasks(task(result(OTHER, updated_at="2024-01-01"), result(BOLT, updated_at="2024-01-03"), result(OTHER))),
        Right(RIGHT, "1 x several annotations of a task: one of them is read"),
    ),
    case(
        "an annotation marked as ground truth",
        tasks(task(result(BOLT, ground_truth=True), result(OTHER, updated_at="2030-01-01"))),
        Right(RIGHT, "1 x several annotations of a task"),
    ),
    case(
        "cancelled annotations, and tasks with predictions only",
        tasks(
            task(result(OTHER, was_cancelled=True, updated_at="2030"), result(BOLT), predictions=[result(OTHER)]),
            task(result(OTHER, was_cancelled=True), image="2.jpg"),
            task(image="3.jpg", predictions=[result(OTHER)]),
            {"data": {"image": "4.jpg"}, "annotations": None},
        ),
        Right(RIGHT, r"3 x task without a submitted annotation left out.*skipped.*only predictions.*not labelled"),
    ),
    case(
        "an annotation without regions",
        tasks(task(result(BOLT)), task({"result": None}, image="2.jpg"), images=("1.jpg", "2.jpg")),
        Right({**RIGHT, "2.jpg": []}),
    ),
    case("rotated box", tasks(task(result(TURNED))), Right({"1.jpg": [("bolt", BOX)]}, "rotated box replaced")),
    case("label and shape as two results", tasks(task(result(*SEPARATE))), Right(RIGHT, f"1 x {NO_SHAPE}.*textarea")),
    case("a relation of regions", tasks(task(result(*RELATED))), Right(RIGHT, f"1 x {NO_SHAPE}.*relation")),
    case("regions without a size", without_sizes, Right(RIGHT)),
    case("local storage", tasks(task(result(BOLT), image="/data/local-files/?d=some/set/1.jpg")), Right(RIGHT, "URL")),
    case("version 0.9", tasks({"data": {"image": "1.jpg"}, "completions": [result(BOLT)]}), Right(RIGHT)),
    case(
        "ellipse and polygon",
        tasks(
            task(
                result(
                    {
                        "type": "ellipselabels",
                        "value": {
                            "x": 50,
                            "y": 50,
                            "radiusX": 12.5,
                            "radiusY": 25,
                            "rotation": 0,
                            "ellipselabels": ["nut"],
                        },
                    },
                    {
                        "type": "polygonlabels",
                        "value": {"points": [[25, 25], [50, 25], [50, 50]], "closed": True, "polygonlabels": ["bolt"]},
                    },
                )
            )
        ),
        Right({"1.jpg": [("bolt", (24.0, 18.0, 48.0, 36.0)), ("nut", (36.0, 18.0, 60.0, 54.0))]}, masks=2),
    ),
    case(
        "a corrupt mask",
        tasks(task(result({"type": "brushlabels", "value": {"format": "rle", "rle": RLE, "brushlabels": ["bolt"]}}))),
        Refused(
            r"task 1, region 1 \(bolt\): the mask ends after 1 of 27648 values; draw the mask again",
            Right(RIGHT),
            tasks(task(result(BOLT))),
        ),
    ),
    case(
        "an image that was rotated in the tool",
        tasks(task(result({**BOLT, "image_rotation": 90}))),
        Refused("rotated in Label Studio by 90 degrees", Right(RIGHT), tasks(task(result(BOLT)))),
    ),
    case(
        "an image of another size",
        tasks(task(result({**BOLT, "original_width": 960, "original_height": 720}))),
        Refused(
            r"annotated 960 x 720, file 96 x 72.*--images", Right(RIGHT), lambda root: tasks(task(result(BOLT)))(root)
        ),
    ),
    case(
        "several images in one task",
        tasks(task(result(BOLT)), {"data": {"pages": ["1.jpg", "2.jpg"]}, "annotations": [result(BOLT)]}),
        Refused("task 2: pages has 2 images; import each image", Right(RIGHT), tasks(task(result(BOLT)))),
    ),
    case(
        "nothing submitted",
        tasks(task(predictions=[result(BOLT)])),
        Refused("no task has a submitted annotation", Right(RIGHT), tasks(task(result(BOLT)))),
    ),
    Case(
        "JSON-MIN of several annotators",
        "labelstudio",
        min_rows(
            {"label": [region("nut", 1, 1, 9, 9)], "updated_at": "2024-01-01"},
            {"label": [region("bolt", *BOX)], "updated_at": "2024-01-02", "choice": "good"},
        ),
        Right(RIGHT, "1 x several annotations of a task(.|\n)*tags of an image ignored"),
    ),
]
