"""Sizes of objects at the network's input, and the input size that would help."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from detseg.annotations import AnnotationTable, read
from detseg.annotations.builder import TableBuilder
from detseg.annotations.object_size import helpful_size, input_sides, share_too_small, too_small_line
from detseg.classes import ClassMap
from detseg.cli import main
from detseg.doctor import inspect_table
from detseg.options import TrainConfig
from detseg.options.defaults import IMAGE_SIZE_ON_CPU
from detseg.preprocess import Preprocessing, longer_side
from detseg.runtime.machine import MachineFacts
from detseg.synthetic.demo.render import demo_folder
from detseg.training.input_size import too_small_lines
from detseg.training.make_plan import make_plan
from tests.real_exports import sets

GIB = 2**30


def table_of(sides: list[float], size_hw: tuple[int, int] = (960, 1280), images: int = 4) -> AnnotationTable:
    builder = TableBuilder(ClassMap.from_names(["bolt"]), "/nowhere", source="test data")
    for image in range(images):
        builder.add_image(f"{image}.jpg", size_hw)
        for number, side in enumerate(sides):
            builder.add_instance([30 * number, 10, side, side], 1)
        builder.add_instance([0, 100, 1, 1], 1, iscrowd=True)  # not trained on, so not counted
    return builder.build()


def preprocessing(size: int) -> Preprocessing:
    return Preprocessing(size, longer_side(size))


@pytest.mark.parametrize(
    ("sides", "share", "helpful"),
    [
        ([], 0, 480),
        ([40], 0, 480),
        ([16], 0, 480),  # 8 px at half the size
        ([15.9, 40, 40, 40], 0.25, 480),  # a quarter is not more than a quarter
        ([12, 12, 40, 40], 0.5, 640),
        ([2, 12, 12, 40], 0.75, 640),  # one of four may be too small
        ([2, 2, 2, 2], 1, 3840),
    ],
)
def test_helpful_size(sides: list[float], share: float, helpful: int) -> None:
    table = table_of(sides)
    at_480 = input_sides(table, preprocessing(480))
    assert share_too_small(at_480) == share
    assert helpful_size(at_480, 480) == helpful
    assert share_too_small(input_sides(table, preprocessing(helpful))) <= 0.25
    if helpful > 480:
        below = input_sides(table, preprocessing(helpful - 33))
        assert share_too_small(below) > 0.25, "control: a smaller size does not help"


def test_long_images_are_limited_by_their_longer_side_and_stretched_ones_by_none() -> None:
    table = table_of([20], size_hw=(500, 4000))
    assert input_sides(table, preprocessing(480))[0] == pytest.approx(20 * 800 / 4000)
    assert input_sides(table, Preprocessing(320, 0, stretch=True))[0] == pytest.approx(20 * 320 / np.sqrt(500 * 4000))
    assert input_sides(table, Preprocessing(480, 0))[0] == pytest.approx(20 * 480 / 500)


def test_the_line_proposes_a_size_or_smaller_images() -> None:
    assert too_small_line(input_sides(table_of([40]), preprocessing(480)), 480) == ""
    line = too_small_line(input_sides(table_of([12, 40]), preprocessing(480)), 480)
    assert line.startswith("4 of 8 training objects (50%) are smaller than 8 px")
    assert line.endswith("train with --image-size 640")
    assert "3840 px would be needed; cut the images" in too_small_line(
        input_sides(table_of([2]), preprocessing(480)), 480
    )


@pytest.mark.parametrize(
    ("side", "machine", "size", "reason"),
    [
        (40, MachineFacts(memory=8 * GIB), 480, "a CPU needs twice"),
        (12, MachineFacts(memory=8 * GIB), 640, "at 480, 100% of the training objects would be smaller than 8 px"),
        (8, MachineFacts(memory=8 * GIB), 800, "; 960 would be too large for this machine"),
        (8, MachineFacts(memory=4 * GIB), 640, "; 960 would be too large for this machine"),
        (8, MachineFacts(memory=2 * GIB), 480, "a CPU needs twice"),
        (10, MachineFacts("cuda", gpu_memory=16 * GIB), None, ""),
        (8, MachineFacts("cuda", gpu_memory=16 * GIB), 960, "at 800, 100% of the training objects"),
        (4, MachineFacts("cuda", gpu_memory=16 * GIB), 1216, "; 1920 would be too large for this machine"),
        (4, MachineFacts("cuda", gpu_memory=8 * GIB), 1024, "; 1920 would be too large for this machine"),
        (4, MachineFacts("cuda", gpu_memory=4 * GIB), None, ""),
    ],
)
def test_the_default_size_of_a_run(side: float, machine: MachineFacts, size: int | None, reason: str) -> None:
    table = table_of([side])
    options = TrainConfig(data="x", weights="none", model="fasterrcnn_resnet50_fpn")
    plan = make_plan(options, table, table, machine)
    assert plan.model.image_size == size
    assert reason in plan.reasons.get("image_size", "")


@pytest.mark.parametrize("model", ["ssdlite320_mobilenet_v3_large", "fasterrcnn_mobilenet_v3_large_fpn_slim"])
def test_a_size_of_the_user_or_of_the_model_stays(model: str) -> None:
    table = table_of([4])
    size = None if model.startswith("ssd") else 320
    options = TrainConfig(data="x", weights="none", model=model, image_size=size)
    assert make_plan(options, table, table, MachineFacts(memory=8 * GIB)).model.image_size == size


def small_objects(data: Path) -> None:
    names = ("a.jpg", "b.jpg", "c.jpg")
    for name in names:
        sets.image(data / "images" / name, 960, 720)
    value = {
        "images": [{"id": number, "file_name": name, "width": 960, "height": 720} for number, name in enumerate(names)],
        "annotations": [
            {"id": number, "image_id": number % 3, "category_id": 1, "bbox": [10 * number, 20, 8, 9]}
            for number in range(9)
        ],
        "categories": [{"id": 1, "name": "bolt"}],
    }
    sets.put(data / "annotations.json", json.dumps(value))


def test_inspect_says_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    small_objects(tmp_path / "data")
    assert main(["inspect", str(tmp_path / "data"), "--output", str(tmp_path / "out")]) == 0
    text = "at an input size of 480 px (the default on a CPU), so they are hardly visible to the network; train with"
    assert f"6 of 6 training objects (100%) are smaller than 8 px (square root of the box area) {text}" in (
        printed := capsys.readouterr().out
    )
    assert "train with --image-size 704" in printed


@pytest.mark.slow
def test_train_says_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    small_objects(tmp_path / "data")
    model = ["--model", "fasterrcnn_mobilenet_v3_large_fpn_slim", "--weights", "none", "--image-size", "64"]
    assert main(["train", str(tmp_path / "data"), *model, "--epochs", "1", "--output", str(tmp_path / "run")]) == 0
    assert "warning: 6 of 6 training objects (100%) are smaller than 8 px" in capsys.readouterr().out


def test_the_lines_of_train() -> None:
    """They are about the size of the plan, chosen or an option."""
    table = table_of([12])
    options = TrainConfig(data="x", weights="none", model="fasterrcnn_resnet50_fpn")
    machine = MachineFacts(memory=8 * GIB)
    assert too_small_lines(make_plan(options, table, table, machine), table, None) == []
    plan = make_plan(replace(options, image_size=480), table, table, machine)
    (line,) = too_small_lines(plan, table, None)
    assert line.startswith("  warning: 4 of 4 training objects")
    assert line.endswith("train with --image-size 640")
    plan = make_plan(options, table_of([8]), table_of([8]), machine)
    (line,) = too_small_lines(plan, table_of([8]), None)
    assert "at an input size of 800 px" in line
    assert line.endswith("train with --image-size 960")


def test_clean_sets_keep_their_default(shared_data: Path) -> None:
    for name in ("coco_open", "bccd", "oxford_pet_26", "padilla_metrics", "shapes", str(demo_folder())):
        sides = input_sides(read(shared_data / name), preprocessing(int(IMAGE_SIZE_ON_CPU.value)))
        assert share_too_small(sides) < 0.2, name
    assert not [finding for finding in inspect_table(read(demo_folder())) if finding.kind == "small objects"]
