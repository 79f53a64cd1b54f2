"""An odd data set, its right reading, and how each command is held to it."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from detseg.annotations import AnnotationTable, read
from detseg.annotations.from_options import load_table
from detseg.annotations.lost_objects import LostObjects
from detseg.boxes import xywh_to_xyxy
from detseg.cli import main
from detseg.errors import DataError
from detseg.masks import segmentation_to_rle
from detseg.metrics import CocoEvaluator
from detseg.options import EvaluateConfig, TrainConfig
from detseg.structures import Prediction

Box = tuple[float, float, float, float]

DOORS = ("python", "inspect", "train", "evaluate", "convert")


@dataclass(frozen=True)
class Right:
    """What a correct reading gives.

    Attributes:
        objects: file name of each image -> class name and box x1, y1, x2, y2 (within 0.01 px) of its objects that are
            learned from or counted; order does not matter.
        note: regular expression found in the notes; "" if there must be none.
        masks: number of objects with a mask; None: not checked.
        options: of reading: keyword arguments of ``read``, and flags of the commands.
        finding: regular expression found in the findings of ``inspect``; "" if there must be none, None: not checked.
        lost: regular expression found in the line of lost objects, which is empty without any; None: not checked.
    """

    objects: dict[str, list[tuple[str, Box]]]
    note: str = ""
    masks: int | None = None
    options: dict[str, Any] = field(default_factory=dict)
    finding: str | None = None
    lost: str | None = None


@dataclass(frozen=True)
class Refused:
    """The message of a refusal, and what its remedy gives.

    Attributes:
        message: regular expression found in the message.
        then: the reading after the remedy was followed, with the options that the message names.
        mend: does to the folder what the message says; None if options are enough.
        options: of the reading that is refused.
    """

    message: str
    then: Right
    mend: Callable[[Path], object] | None = None
    options: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Case:
    """One kind of oddity in one format.

    Attributes:
        kind: the kind, such as "exchanged corners"; ``format``: name of the format.
        write: writes the data set, images included, into an empty folder.
        expected: the right reading, or the refusal.
        path: what is read, relative to the folder.
        without: command -> reason why the case does not concern it.
    """

    kind: str
    format: str
    write: Callable[[Path], object]
    expected: Right | Refused
    path: str = "."
    without: dict[str, str] = field(default_factory=dict)

    @property
    def name(self) -> str:
        return f"{self.kind}: {self.format}"


def check(case: Case, door: str, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Write the set into ``folder``/data, and hold the reading through ``door`` to what is expected."""
    root = folder / "data"
    root.mkdir()
    case.write(root)
    source, expected = root / case.path, case.expected
    if isinstance(expected, Refused):
        message = _refusal(door, source, folder, expected.options, capsys)
        assert re.search(expected.message, message), message
        if expected.mend is not None:
            expected.mend(root)
        expected = expected.then
    _READ[door](source, folder, expected, capsys)


def flags(options: dict[str, Any]) -> list[str]:
    """Options of ``read`` as flags of a command."""
    words = []
    for name, value in options.items():
        flag = "--" + name.replace("_", "-")
        words += (
            [flag] if value is True else [flag, json.dumps(value) if isinstance(value, (list, dict)) else str(value)]
        )
    return words


def objects(table: AnnotationTable) -> dict[str, list[tuple[str, Box]]]:
    """The objects of a table that are learned from, as in ``Right.objects``."""
    return {
        record.path.name: [
            (table.class_map.name_of(int(label)), tuple(box))
            for box, label, crowd, ignored in zip(
                xywh_to_xyxy(record.boxes_xywh).tolist(), record.labels, record.iscrowd, record.ignore, strict=True
            )
            if not crowd and not ignored
        ]
        for record in table
    }


def assert_equal(table: AnnotationTable, expected: Right, *, notes: bool = True) -> None:
    """Compare a table with what is expected."""
    found = objects(table)
    assert sorted(found) == sorted(expected.objects)
    for name, wanted in expected.objects.items():
        assert len(found[name]) == len(wanted), (name, found[name])
        for (class_name, box), (other, wanted_box) in zip(sorted(found[name]), sorted(wanted), strict=True):
            assert class_name == other
            assert box == pytest.approx(wanted_box, abs=0.01)
    if expected.masks is not None:
        assert int(table.segmentation.present()[table.trained_rows()].sum()) == expected.masks
    if notes:
        _assert_text(expected.note, "\n".join(table.notes.lines()))
        assert expected.lost is None or re.search(expected.lost, table.lost.line())


def _assert_text(expression: str, text: str) -> None:
    assert re.search(expression, text) if expression else not text, text


def _refusal(door: str, source: Path, folder: Path, options: dict[str, Any], capsys: pytest.CaptureFixture[str]) -> str:
    if door in ("inspect", "convert"):
        output = ["--output", str(folder / "refused")] if door == "inspect" else [str(folder / "refused")]
        assert main([door, str(source), *output, *flags(options)]) == 1
        return capsys.readouterr().err
    with pytest.raises(DataError) as refused:
        _table(door, source, options)
    return str(refused.value)


def _table(door: str, source: Path, options: dict[str, Any]) -> AnnotationTable:
    if door == "train":
        return load_table(TrainConfig(data=str(source), **options))
    if door == "evaluate":
        return load_table(EvaluateConfig(data=str(source), **options))
    return read(source, **options)


def _check_table(door: str) -> Callable[..., None]:
    def check_door(source: Path, folder: Path, expected: Right, capsys: pytest.CaptureFixture[str]) -> None:
        assert_equal(_table(door, source, expected.options), expected)

    return check_door


def _check_inspect(source: Path, folder: Path, expected: Right, capsys: pytest.CaptureFixture[str]) -> None:
    capsys.readouterr()
    main(["inspect", str(source), "--output", str(folder / "inspected"), "--json", *flags(expected.options)])
    summary = json.loads(capsys.readouterr().out)
    assert summary["images"] == len(expected.objects)
    learned = summary["instances"] - summary["crowds"] - summary["ignored"]
    assert learned == sum(map(len, expected.objects.values()))
    _assert_text(expected.note, "\n".join(summary["notes"]))
    assert expected.lost is None or re.search(expected.lost, LostObjects(**summary["lost"]).line())
    if expected.finding is not None:
        _assert_text(expected.finding, "\n".join(finding["message"] for finding in summary["findings"]))


def _check_evaluate(source: Path, folder: Path, expected: Right, capsys: pytest.CaptureFixture[str]) -> None:
    """Perfect predictions of what is expected have AP 1."""
    table = _table("evaluate", source, expected.options)
    evaluator = CocoEvaluator(table)
    for record in table:
        wanted = expected.objects[record.path.name]
        prediction = Prediction(
            record.size_hw,
            np.array([box for _, box in wanted], np.float32).reshape(-1, 4),
            np.array([table.class_map.label_of(name) for name, _ in wanted], np.int64),
            np.linspace(1, 0.5, len(wanted), dtype=np.float32),
            [segmentation_to_rle([np.array([[0.0, 0], [1, 0], [1, 1]])], record.size_hw) for _ in wanted],
        )
        evaluator.update([{"image_id": record.image_id}], [prediction])
    has_objects = any(expected.objects.values())
    assert evaluator.compute().scalars()["bbox_AP"] == pytest.approx(1 if has_objects else -1)


def _check_convert(source: Path, folder: Path, expected: Right, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["convert", str(source), str(folder / "coco"), "--to", "coco", *flags(expected.options)]) == 0
    again = {name: value for name, value in expected.options.items() if name == "without_mask"}  # not in the files
    assert_equal(read(folder / "coco", **again), expected, notes=False)


_READ: dict[str, Callable[..., None]] = {
    "python": _check_table("python"),
    "train": _check_table("train"),
    "inspect": _check_inspect,
    "evaluate": _check_evaluate,
    "convert": _check_convert,
}
