"""A share of the fuzzer's inputs, and controls: it finds faults that are put back."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from detseg.errors import DataError
from tests.fuzz.inputs import KINDS, wrong_lines
from tests.fuzz.runner import groups, run_inputs

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the limits of memory are those of Linux")


def check(number: int, first: int = 0) -> None:
    findings = run_inputs(range(first, first + number), seed=7)
    assert [(count, finding.number, finding.problem) for count, finding in groups(findings)] == []


def test_share() -> None:
    check(200)


@pytest.mark.slow
def test_larger_share() -> None:
    check(1500, first=1000)


def _patch(name: str, value: Any) -> None:
    """Replace ``module.name`` in a child process, which ends afterwards."""
    module, _, attribute = name.rpartition(".")
    __import__(module)
    setattr(sys.modules[module], attribute, value)


def png_lengths() -> None:
    """The decoder allocates what a chunk claims."""
    _patch("detseg.image_container._check_chunks", lambda *_, **__: None)


def jpeg_scans() -> None:
    """A JPEG of any number of scans, here with a clock that counts them as gigapixels."""
    _patch("detseg.images.check_pixels", lambda data, name: _sleep(data.count(b"\xff\xda")))
    _patch("tests.fuzz.runner.SECONDS", 2)


def _sleep(scans: int) -> None:
    import time

    end = time.process_time() + (3 if scans > 100 else 0)
    while time.process_time() < end:
        pass


def unnamed_decoder_lines() -> None:
    _patch("detseg.images.with_native_lines", lambda function: (function(), []))


def own_yaml_errors() -> None:
    """The parser in Python, whose OverflowError was not caught, and the last of two keys."""
    import yaml

    _patch("detseg.annotations.formats.yolo.config.parse_yaml", lambda text, _: yaml.load(text, Loader=yaml.BaseLoader))


def unlimited_messages() -> None:
    _patch("detseg.errors.one_line", lambda text, width=0: text)


def json_faults() -> None:
    """The errors of JSON decoders that are not msgspec's: bytes, digits."""

    def any_json(raw: bytes, source: str) -> Any:
        try:
            return msgspec.json.decode(raw)
        except (msgspec.DecodeError, RecursionError) as error:
            raise DataError(f"{source}: {error}") from None

    _patch("detseg.annotations.formats.coco.json_file._any_json", any_json)
    _patch("detseg.json_text.problem_of", str)


def weights_keys() -> None:
    """Keys of a state dict are taken for names."""
    _patch("detseg.models.weights.state_files._parse_pickle", lambda content, path: _loaded(content))


def _loaded(content: bytes) -> Any:
    import io

    import torch

    return torch.load(io.BytesIO(content), weights_only=True)


def safetensors_header() -> None:
    """Metadata of another type than text."""

    def parse(content: bytes, path: Path) -> Any:
        end = 8 + int.from_bytes(content[:8], "little")
        try:
            metadata = json.loads(content[8:end]).get("__metadata__") or {}
            return json.loads(metadata["detseg"]) if "detseg" in metadata else None, {}
        except ValueError as error:
            raise DataError(f"{path}: {error}") from None

    _patch("detseg.models.weights.state_files.parse_safetensors", parse)


def saved_options() -> None:
    """Options of a run are used as they are written."""
    import tomllib

    from detseg.options.text import flat_options

    _patch(
        "detseg.training.resume.read_saved_options",
        lambda path, command="train": flat_options(tomllib.loads(path.read_text(encoding="utf-8"))),
    )


def device_meta() -> None:
    import torch

    _patch("detseg.inference.predictor.pick_device", lambda device: torch.empty(0, device=device).device)


def paths_outside() -> None:
    """A name in an annotation file is joined to the folder, and opened if it exists."""
    from detseg.annotations.image_lookup import ImageLookup

    def find(self: ImageLookup, reference: Any) -> Any:
        names = [name for name in (reference.name, f"images/{reference.name}") if (self.root / name).is_file()]
        return names[:1], ""

    _patch("detseg.annotations.image_lookup.ImageLookup", type("Joined", (ImageLookup,), {"find": find}))
    ImageLookup.find = find  # type: ignore[method-assign]


CONTROLS: tuple[tuple[Callable[[], None], str, str], ...] = (
    (png_lengths, "image", ""),
    (jpeg_scans, "image", "more than"),
    (unnamed_decoder_lines, "image", "a line of a library: "),
    (own_yaml_errors, "set", ""),
    (unlimited_messages, "set", ""),
    (json_faults, "set", ""),
    (weights_keys, "weights", "AttributeError"),
    (safetensors_header, "weights", ""),
    (saved_options, "run", ""),
    (device_meta, "options", ""),
    (paths_outside, "set", "opened "),
)


@pytest.mark.slow
@pytest.mark.parametrize(("fault", "kind", "problem"), CONTROLS, ids=[control[0].__name__ for control in CONTROLS])
def test_faults_that_are_put_back_are_found(fault: Callable[[], None], kind: str, problem: str) -> None:
    """Within the share of its kind of 20,000 inputs."""
    number = 20_000 * KINDS[kind] // 100
    findings = run_inputs(range(number), seed=7, kinds={kind: 1}, before=fault, stop_at_first=True)
    assert findings
    assert findings[0].problem.startswith(problem)


def test_wrong_lines() -> None:
    assert wrong_lines("a.json: the box is empty; remove it", "a.json") == ""
    assert wrong_lines("a.json: not JSON (invalid literal); export it again", "a.json") == ""
    for text in (
        "the box is empty",
        "a.json: 'utf-8' codec can't decode byte",
        "a.json: one\na.json: two",
        "a.json: \x1b[2J",
        "a.json: " + "x" * 2000,
    ):
        assert wrong_lines(text, "a.json")


def die() -> None:
    _patch("detseg.images.check_header", lambda *_: os.kill(os.getpid(), 9))


@pytest.mark.slow
def test_a_process_that_dies_is_found() -> None:
    findings = run_inputs(range(2), kinds={"image": 1}, before=die)
    assert [finding.problem for finding in findings] == ["the process died: SIGKILL"] * 2
    assert [finding.number for finding in findings] == [0, 1]
