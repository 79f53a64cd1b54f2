"""A catalogue of wrong targets, each given to five detectors: a clear error by the image's id. N3 of the scorecard."""

from __future__ import annotations

import faulthandler
import json
import math
import os
import re
import resource
import signal
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest
import torch

import detseg.models.detector as detector_module
import detseg.models.one_stage as one_stage_module
from detseg.classes import ClassMap
from detseg.errors import DataError
from detseg.models import build_model, describe
from tests.faults.conftest import DETECTORS

Target = dict[str, torch.Tensor]

SIDE, CLASSES = 64, 2
GOOD_ID, BAD_ID = 16, 17


def good() -> Target:
    return {
        "boxes": torch.tensor([[5.0, 5.0, 30.0, 30.0], [10.0, 12.0, 40.0, 50.0]]),
        "labels": torch.tensor([1, 2]),
        "masks": torch.ones(2, SIDE, SIDE, dtype=torch.uint8),
    }


def boxes(*second: float) -> Callable[[], Target]:
    """The second box is this."""
    return lambda: good() | {"boxes": torch.tensor([[5.0, 5.0, 30.0, 30.0], second])}


def changed(key: str, change: Callable[[torch.Tensor], torch.Tensor]) -> Callable[[], Target]:
    return lambda: good() | {key: change(good()[key])}


def without(key: str) -> Callable[[], Target]:
    return lambda: {name: value for name, value in good().items() if name != key}


BAD_TARGETS: dict[str, Callable[[], Target]] = {
    "NaN coordinate": boxes(10, math.nan, 40, 50),
    "infinite coordinate": boxes(10, 12, math.inf, 50),
    "minus infinite coordinate": boxes(10, -math.inf, 40, 50),
    "x2 < x1": boxes(40, 12, 10, 50),
    "no width": boxes(10, 12, 10, 50),
    "no height": boxes(10, 12, 40, 12),
    "negative coordinates": boxes(-9, -9, 40, 50),
    "outside on the right": boxes(70, 12, 90, 50),
    "outside below": boxes(10, 70, 40, 90),
    "huge coordinates": boxes(10, 12, 1e30, 1e30),
    "x, y, width, height": boxes(40, 40, 20, 20),
    "a larger image's boxes": changed("boxes", lambda value: value * 4),
    "boxes in 0..1": changed("boxes", lambda value: value / SIDE),
    "one box, shape [4]": changed("boxes", lambda value: value[0]),
    "boxes with a score, [N, 5]": changed("boxes", lambda value: torch.cat([value, value[:, :1]], dim=1)),
    "whole numbers as boxes": changed("boxes", lambda value: value.long()),
    "float64 boxes, as numpy makes them": changed("boxes", lambda value: value.double()),
    "no boxes": without("boxes"),
    "no labels": without("labels"),
    "label 0": changed("labels", lambda value: value * torch.tensor([1, 0])),
    "label -1": changed("labels", lambda value: value * torch.tensor([1, 0]) - torch.tensor([0, 1])),
    "label K + 1": changed("labels", lambda value: value + torch.tensor([0, CLASSES - 1])),
    "label 2^31": changed("labels", lambda value: value + torch.tensor([0, 2**31])),
    "labels as float numbers": changed("labels", lambda value: value.float()),
    "one label too many": changed("labels", lambda value: torch.tensor([1, 2, 1])),
}
BAD_MASKS: dict[str, Callable[[], Target]] = {
    "no masks": without("masks"),
    "masks of another size": changed("masks", lambda value: value[:, :32]),
    "one mask too few": changed("masks", lambda value: value[:1]),
    "masks of 0 and 255": changed("masks", lambda value: value * 255),
}
GOOD = {"boxes in 0..1"}
"""Cells that train: a box within the first pixel may be right, one that is cut at the corner of its image. A whole
data set of them is refused when it is read (annotations/plausible.py)."""

CELLS = 129


def catalogue_of(arch: str) -> dict[str, Callable[[], Target]]:
    return BAD_TARGETS | (BAD_MASKS if arch.startswith("maskrcnn") else {})


def outcome(model: Any, images: list[torch.Tensor], wrong: Target) -> str:
    """What training on a good target and a wrong one comes to."""
    given = [good() | {"image_id": torch.tensor(GOOD_ID)}, wrong | {"image_id": torch.tensor(BAD_ID)}]
    torch.manual_seed(0)
    try:
        losses = model(images, given)
    except DataError as error:
        return f"named: {error}" if f"image_id {BAD_ID}" in str(error) else f"not named: {error}"
    except Exception as error:
        return f"crash: {type(error).__name__}: {error}"
    return "trained" if all(math.isfinite(loss.item()) for loss in losses.values()) else "NaN loss"


def lines_of(arch: str, names: list[str], before: Callable[[], None]) -> Iterator[str]:
    """One outcome for each name, from a process of its own; fewer if it dies."""
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(read)
        faulthandler.disable()
        signal.alarm(120)  # ends a process that hangs
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        try:
            torch.set_num_threads(1)
            before()
            torch.manual_seed(0)
            class_map = ClassMap.from_names([f"class {index}" for index in range(CLASSES)])
            description = replace(
                describe(arch, class_map, weights="none", image_size=SIDE), rpn_post_nms_top_n=(50, 50)
            )
            model = build_model(description).train()
            images = [torch.randint(0, 255, (3, SIDE, SIDE), dtype=torch.uint8) for _ in range(2)]
            for name in names:
                os.write(write, json.dumps(outcome(model, images, catalogue_of(arch)[name]())).encode() + b"\n")
        finally:
            os._exit(0)
    os.close(write)
    with os.fdopen(read) as file:
        yield from (json.loads(line) for line in file)
    _, status = os.waitpid(child, 0)
    if os.waitstatus_to_exitcode(status) < 0:
        yield f"lost: signal {-os.waitstatus_to_exitcode(status)}"


def outcomes(arch: str, before: Callable[[], None] = lambda: None) -> dict[str, str]:
    """Name of each wrong target of the catalogue -> what came of it."""
    names = list(catalogue_of(arch))
    found: list[str] = []
    while len(found) < len(names):
        new = list(lines_of(arch, names[len(found) :], before))
        assert new, "the process got nowhere"
        found += new
    return dict(zip(names, found, strict=True))


def is_right(name: str, text: str) -> bool:
    return text == "trained" if name in GOOD else text.startswith("named: ")


def kind_of(message: str) -> str:
    """A message without its numbers."""
    return re.sub(r"-?\b(\d[\d.e+]*|nan|inf)\b", "#", message)


@pytest.mark.parametrize("arch", DETECTORS)
def test_each_is_refused_by_the_images_id(arch: str, tally: Callable[[str, int, int], None]) -> None:
    found = outcomes(arch)
    print({name: text for name, text in found.items() if not is_right(name, text)})
    kinds = {kind_of(text) for text in found.values() if text.startswith("named: ")}
    print(f"{len(kinds)} kinds of message")
    assert len(kinds) >= 9
    right = sum(is_right(name, text) for name, text in found.items())
    tally("N3 wrong targets, refused by the image's id", right, len(found))


def without_the_door() -> None:
    for module in (detector_module, one_stage_module):
        module.check_targets = lambda *given, **more: None  # type: ignore[attr-defined]


@pytest.mark.parametrize("arch", DETECTORS)
def test_control_without_the_door_most_are_silent_or_worse(arch: str) -> None:
    found = outcomes(arch, without_the_door)
    bad = {name: text for name, text in found.items() if name not in GOOD}
    count = {how: sum(text.startswith(how) for text in bad.values()) for how in ("trained", "NaN", "crash", "lost")}
    print(f"{arch}: of {len(bad)} {count}")
    assert count["trained"] >= 5
    assert sum(count.values()) == len(bad)


def test_there_are_129() -> None:
    assert len(BAD_TARGETS) == 25
    assert sum(len(catalogue_of(arch)) for arch in DETECTORS) == CELLS
