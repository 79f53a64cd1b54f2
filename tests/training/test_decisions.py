"""Decisions of a run, for 300 sets of options, six kinds of data, with and without a GPU, are those that are stored.

``python tests/training/test_decisions.py`` stores the decisions of today: do that only for a change that is meant, in a
commit of its own that states the reason.
"""

from __future__ import annotations

import json
import lzma
import random
import re
from collections.abc import Iterator
from dataclasses import asdict
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from detseg.annotations import AnnotationTable, read, split
from detseg.annotations.builder import TableBuilder
from detseg.classes import ClassMap, LabelField, joined
from detseg.errors import DataError
from detseg.keypoints import keypoint_schema
from detseg.options import TrainConfig, defaults
from detseg.options.field import Default
from detseg.runtime.machine import MachineFacts
from detseg.training.make_plan import make_plan
from detseg.training.time_budget import choose_epochs
from detseg.training.time_limit import EpochSeconds, TimeLimit

ROOT = Path(__file__).resolve().parents[2]
STORED = Path(__file__).with_name("decisions.json.xz")
SETS = 300
KINDS = ("classify", "label fields", "detect", "segment", "keypoints", "demo")
MACHINES = {
    "cpu": MachineFacts("cpu", cores=2, memory=8 * 2**30),
    "cuda": MachineFacts("cuda", cores=8, memory=32 * 2**30, gpu_memory=16 * 2**30),
}
SHARED = {1: EpochSeconds(20.0, 5.0, 0.5), 2: EpochSeconds(10.0, 2.5, 0.5)}
"""Number of processes -> seconds of an epoch that they share."""

MEANING_OF_NONE = {"eval_epochs": 1, "norm_eval": False, "tile": 0}

VALUES: dict[str, tuple[Any, ...]] = {
    "task": ("detect", "segment", "keypoints", "classify"),
    "model": (
        "fasterrcnn_resnet50_fpn", "maskrcnn_mobilenet_v3_large_fpn_slim", "keypointrcnn_resnet18_fpn", "resnet18",
        "mobilenet_v3_large", "retinanet_resnet18_fpn", "fcos_mobilenet_v2_fpn", "ssdlite320_mobilenet_v3_large",
    ),
    "weights": ("coco", "imagenet", "bundled", "none"),
    "freeze": ("none", "stem", "backbone", "neck", "rpn"),
    "trainable_layers": (0, 3, 5),
    "norm_eval": (True, False),
    "image_size": (16, 240, 640),
    "anchor_sizes": ([16, 32, 64, 128, 256],),
    "rois_per_image": (0, 64, 512),
    "mask_rois_per_image": (0, 6),
    "detections_per_image": (0, 30, 300),
    "augment": ("none", "flip", "light", "aerial", "strong"),
    "epochs": (0, 1, 3, 12, 100),
    "minutes": (0.1, 1.0, 20.0, -1.0),
    "batch_size": (1, 4, 64),
    "optimizer": ("sgd", "adamw"),
    "lr": (1e-3, 0.0),
    "weight_decay": (0.01, -0.1),
    "backbone_lr_mult": (0.1, 0.0),
    "head_lr_mult": (3.0,),
    "beta2": (0.98, 1.5),
    "schedule": ("constant", "step", "multistep", "exponential", "cosine"),
    "milestones": ([2, 4],),
    "warmup_steps": (0, 50),
    "accumulate": (2, 8),
    "patience": (3,),
    "eval_epochs": (2, 5),
    "linear_probe_epochs": (1, 2, "half"),
    "finetune_lr_mult": (0.5,),
    "cache": ("memory", "disk", "off"),
    "ema": (0.99, 2.0),
    "workers": (0, 2),
    "seed": (1,),
}  # fmt: skip


@cache
def table_of(kind: str) -> AnnotationTable:
    """Twelve images in memory (for "demo" the demo set)."""
    if kind == "demo":
        return read(ROOT / "data" / "demo")
    rng = np.random.default_rng(KINDS.index(kind))
    schema = keypoint_schema(["left_eye", "right_eye", "nose"]) if kind == "keypoints" else None
    label_fields: tuple[LabelField, ...] = ()
    class_map = ClassMap(("a", "b", "c"), (1, 2, 3))
    if kind == "label fields":
        label_fields = (LabelField("colour", ClassMap(("blue", "red"))), LabelField("shape", ClassMap(("x", "y", "z"))))
        class_map = joined(label_fields)
    builder = TableBuilder(class_map, "", source=kind, keypoint_schema=schema, label_fields=label_fields)
    for image in range(12):
        classes = {"classify": [image % 3], "label fields": [image % 2, image % 3]}.get(kind)
        builder.add_image(f"{image}.jpg", (240, 320), image_id=image + 1, class_index=classes)
        for instance in range(0 if classes else 1 + image % 4):
            x, y = rng.uniform(0, 150, 2).tolist()
            width, height = rng.uniform(12, 80, 2).tolist()
            ring = np.array([[x, y], [x + width, y], [x + width, y + height], [x, y + height]])
            points = np.array([[x + 1, y + 1, 2], [x + 5, y + 1, 2], [x + 3, y + 4, 2]]) if schema else None
            builder.add_instance(
                [x, y, width, height],
                1 + instance % 3,
                segmentation=[ring] if kind == "segment" else None,
                keypoints=points,
                where=f"image {image}",
            )
    return builder.build()


@cache
def train_split(kind: str) -> AnnotationTable:
    return split(table_of(kind), seed=0)["train"]


def option_sets() -> Iterator[tuple[dict[str, Any], int]]:
    """Options and number of processes; the first set is empty."""
    rng = random.Random(0)
    yield {}, 1
    for _ in range(SETS - 1):
        names = rng.sample(sorted(VALUES), rng.choice((1, 2, 2, 3, 3, 4, 6)))
        yield {name: rng.choice(VALUES[name]) for name in names}, rng.choice((1, 1, 1, 2))


def decide(options: dict[str, Any], world: int, kind: str, machine: MachineFacts) -> dict[str, Any]:
    """What is decided (options that are not the default, and the phases), or the flags that a refusal names."""
    table, train = table_of(kind), train_split(kind)
    try:
        given = TrainConfig(data="" if kind == "demo" else "x", **options)
        plan = make_plan(given, table, train, machine, world)
        if plan.measure_epochs:
            seconds, every = 60 * (plan.training.minutes or 0.0), plan.training.eval_epochs
            limit = TimeLimit(seconds, 0.0, eval_epochs=every, clock=lambda: 0.0)
            plan, _ = choose_epochs(plan, SHARED[world], limit, len(train), world)
    except DataError as error:
        return {"refused": sorted(set(re.findall(r"--[a-z0-9-]+", str(error))))}
    usual = TrainConfig()
    phases = [[p.first_epoch, p.epochs, p.freeze, p.trainable_layers, p.lr] for p in plan.phases]
    decided = {name: value for name, value in plan.values().items() if value != getattr(usual, name)}
    for name, value in MEANING_OF_NONE.items():  # the stored decisions have no value there
        if getattr(given, name) is None and decided.get(name) == value:
            del decided[name]
    return {**decided, "phases": phases}


def decisions() -> list[dict[str, Any]]:
    return [
        {
            "options": options,
            "world": world,
            **{
                f"{kind}, {name}": decide(options, world, kind, machine)
                for kind in KINDS
                for name, machine in MACHINES.items()
            },
        }
        for options, world in option_sets()
    ]


def stored() -> list[dict[str, Any]]:
    return json.loads(lzma.decompress(STORED.read_bytes()))  # type: ignore[no-any-return]


def same(old: Any, new: Any) -> bool:
    """Whether two decisions are equal; a refusal may name more options than the stored one, which named the first."""
    if isinstance(old, dict) and "refused" in old and "refused" in new:
        return set(old["refused"]) <= set(new["refused"])
    return bool(old == new)


def test_every_decision_is_the_stored_one() -> None:
    before, now = stored(), json.loads(json.dumps(decisions()))
    assert len(before) == len(now) == SETS
    different = [
        f"{old['options']} on {name}: {old[name]} is now {new[name]}"
        for old, new in zip(before, now, strict=True)
        for name in old
        if not same(old[name], new[name])
    ]
    assert different == []


def test_the_sets_cover_decisions_and_refusals_of_every_kind() -> None:
    for kind in KINDS:
        results = [one[f"{kind}, cpu"] for one in stored()]
        refused = sum("refused" in result for result in results)
        assert 30 < refused < SETS - 60, kind
        assert len({len(result["phases"]) for result in results if "phases" in result}) == 2, "with a linear probe too"
    assert {name for one in stored() for name in one["options"]} == set(VALUES)


def test_control_another_default_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(defaults, "IMAGE_SIZE_ON_CPU", Default(512, ""))
    before = {name: value for name, value in stored()[0].items() if name not in ("options", "world")}
    now = {f"{kind}, {name}": decide({}, 1, kind, machine) for kind in KINDS for name, machine in MACHINES.items()}
    assert {name for name in before if before[name] != json.loads(json.dumps(now[name]))} == {
        "detect, cpu", "segment, cpu", "keypoints, cpu",
    }  # fmt: skip


if __name__ == "__main__":
    assert asdict(TrainConfig())  # the options can be written
    STORED.write_bytes(lzma.compress(json.dumps(decisions()).encode()))
    print(f"{STORED}: {STORED.stat().st_size} bytes")
