"""Invalid targets for five detectors: each raises a clear error with the image id. N3 of the scorecard."""

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
    """A target whose second box is ``second``."""
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
    "integer boxes": changed("boxes", lambda value: value.long()),
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
"""Targets that train: a box within the first pixel may be correct, for an object cut at the corner of the image. A data
set with only such boxes is rejected when it is read (annotations/plausibility.py)."""

CELLS = 129


def bad_targets_for(arch: str) -> dict[str, Callable[[], Target]]:
    return BAD_TARGETS | (BAD_MASKS if arch.startswith("maskrcnn") else {})


def outcome(model: Any, images: list[torch.Tensor], bad_target: Target) -> str:
    """The result of training on a good target and a bad one."""
    targets = [good() | {"image_id": torch.tensor(GOOD_ID)}, bad_target | {"image_id": torch.tensor(BAD_ID)}]
    torch.manual_seed(0)
    try:
        losses = model(images, targets)
    except DataError as error:
        return f"named: {error}" if f"image_id {BAD_ID}" in str(error) else f"not named: {error}"
    except Exception as error:
        return f"crash: {type(error).__name__}: {error}"
    return "trained" if all(math.isfinite(loss.item()) for loss in losses.values()) else "NaN loss"


def outcomes_of_one_process(arch: str, names: list[str], before: Callable[[], None]) -> Iterator[str]:
    """One outcome for each name, computed in a child process; fewer if the child dies."""
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
                os.write(write, json.dumps(outcome(model, images, bad_targets_for(arch)[name]())).encode() + b"\n")
        finally:
            os._exit(0)
    os.close(write)
    with os.fdopen(read) as file:
        yield from (json.loads(line) for line in file)
    _, status = os.waitpid(child, 0)
    if os.waitstatus_to_exitcode(status) < 0:
        yield f"lost: signal {-os.waitstatus_to_exitcode(status)}"


def outcomes(arch: str, before: Callable[[], None] = lambda: None) -> dict[str, str]:
    """Name of each invalid target -> its outcome."""
    names = list(bad_targets_for(arch))
    results: list[str] = []
    while len(results) < len(names):
        new = list(outcomes_of_one_process(arch, names[len(results) :], before))
        assert new, "the process died before the first outcome"
        results += new
    return dict(zip(names, results, strict=True))


def is_correct(name: str, text: str) -> bool:
    return text == "trained" if name in GOOD else text.startswith("named: ")


def without_numbers(message: str) -> str:
    return re.sub(r"-?\b(\d[\d.e+]*|nan|inf)\b", "#", message)


@pytest.mark.parametrize("arch", DETECTORS)
def test_each_target_raises_an_error_with_the_image_id(arch: str, tally: Callable[[str, int, int], None]) -> None:
    results = outcomes(arch)
    print({name: text for name, text in results.items() if not is_correct(name, text)})
    messages = {without_numbers(text) for text in results.values() if text.startswith("named: ")}
    print(f"{len(messages)} different messages")
    assert len(messages) >= 9
    correct = sum(is_correct(name, text) for name, text in results.items())
    tally("N3 invalid targets, error with the image id", correct, len(results))


def disable_input_checks() -> None:
    for module in (detector_module, one_stage_module):
        module.check_targets = lambda *args, **kwargs: None  # type: ignore[attr-defined]


@pytest.mark.parametrize("arch", DETECTORS)
def test_control_without_input_checks_most_train_silently_or_crash(arch: str) -> None:
    results = outcomes(arch, disable_input_checks)
    bad = {name: text for name, text in results.items() if name not in GOOD}
    count = {kind: sum(text.startswith(kind) for text in bad.values()) for kind in ("trained", "NaN", "crash", "lost")}
    print(f"{arch}: of {len(bad)} {count}")
    assert count["trained"] >= 5
    assert sum(count.values()) == len(bad)


def test_there_are_129() -> None:
    assert len(BAD_TARGETS) == 25
    assert sum(len(bad_targets_for(arch)) for arch in DETECTORS) == CELLS
