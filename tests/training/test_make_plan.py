"""A plan decides everything once, states why, and refuses what would fail later."""

from __future__ import annotations

import itertools
import json
import random
import re
import subprocess
import sys
import tomllib
import types
from dataclasses import fields, is_dataclass, replace
from pathlib import Path
from typing import Any, Union, get_args, get_origin, get_type_hints

import pytest

from detseg.errors import DataError
from detseg.options import TrainConfig
from detseg.options.plan import GROUPS, Phase, Plan
from detseg.options.text import flat_options
from detseg.runtime.reporter import silent
from detseg.training.fit import fit
from detseg.training.make_plan import make_plan, with_epochs

ROOT = Path(__file__).resolve().parents[2]
sys.path.append(str(ROOT))

from tests.training.test_decisions import KINDS, MACHINES, table_of, train_split  # noqa: E402

PACKAGE = ROOT / "detseg"
SAMPLES: dict[str, Any] = {
    "model": "maskrcnn_mobilenet_v3_large_fpn_slim", "weights": "none", "class_transfer": "nut=", "image_size": 64,
    "anchor_sizes": [8, 16, 32, 64, 128], "rois_per_image": 16, "mask_rois_per_image": 4, "detections_per_image": 5,
    "freeze": "backbone", "trainable_layers": 0, "norm_eval": True, "augment": "flip", "epochs": 2, "minutes": 0.01,
    "batch_size": 2, "accumulate": 2, "loss_weights": "mask=2", "clip_norm": 1.0, "precision": "bf16", "ema": 0.9,
    "patience": 1, "eval_epochs": 2, "val_loss": False, "skip_nonfinite": 1, "optimizer": "sgd", "lr": 1e-4,
    "momentum": 0.5, "weight_decay": 0.0, "backbone_lr_mult": 0.1, "head_lr_mult": 2.0, "beta2": 0.9,
    "schedule": "multistep", "milestones": [1], "step_epochs": 1, "gamma": 0.5, "warmup_steps": 1,
    "linear_probe_epochs": 1, "finetune_lr_mult": 0.5, "checkpoint_every": "0", "keep_checkpoints": 1,
    "cache": "memory", "cached_views": 1, "cache_dtype": "float32", "cache_limit": 0.1, "cache_dir": "features",
    "decoded_limit": 0.0, "workers": 0, "device": "cpu", "seed": 1, "val": 0.3, "test": 0.1, "subset": 6,
    "task": "segment", "format": "coco", "mask_values": "class", "bad_instances": "error", "one_based": True,
    "missing_images": "drop", "value_range": [0, 4095], "follow_links": True, "without_mask": "keep",
    "coco_lines": True, "echo": 2, "tile": 128, "overlap": 0.3, "whole_image": False, "min_visible": 0.5,
    "empty_tiles": 0.5, "balance": "repeat", "repeat_threshold": 0.1, "check": False,
    "rename": "nut=bolt", "class_attribute": "kind", "tensorboard": True, "tensorboard_weights": True, "figures": True,
}  # fmt: skip
"""A value of each option that is not its default."""

MEANING_OF_NONE = {
    "data": {
        "format": "as the files say",
        "images": "beside the annotations",
        "annotations": "data says it",
        "without_mask": "box if at least half of the instances have a mask",
    },
    "tiles": {
        "overlap": "0.2",
        "tile_samples": "whole images",
        "repeat_threshold": "not used",
        "whole_image": "yes",
        "fold": "not used",
    },
    "model": {
        "image_size": "that of the weights",
        "anchor_sizes": "those of the architecture or the weights",
        "value_range": "that of the weights, else 16 bits",
    },
}
NOT_USED = {
    "val_annotations", "mask_values", "classes", "group", "split_file", "subset", "backbone", "class_transfer",
    "rois_per_image", "mask_rois_per_image", "detections_per_image", "freeze", "trainable_layers", "minutes",
    "loss_weights", "ema", "beta2", "milestones", "linear_probe_epochs", "output", "resume", "cache_limit",
    "cache_dir", "test", "replay", "most_epochs", "rename", "class_attribute",
}  # fmt: skip
"""None means: not used, no limit, or the default of the machine or split, as the group of the plan states."""


def plan_of(kind: str, machine: str = "cpu", **options: Any) -> Plan:
    given = TrainConfig(data="" if kind == "demo" else "x", **options)
    return make_plan(given, table_of(kind), train_split(kind), MACHINES[machine])


def optional_fields(cls: Any) -> set[str]:
    """Fields of a dataclass, and of the dataclasses in it, that may be None."""
    found: set[str] = set()
    for name, hint in get_type_hints(cls).items():
        parts = get_args(hint) if get_origin(hint) in (Union, types.UnionType, tuple) else (hint,)
        found |= {name} if type(None) in parts else set()
        for part in parts:
            found |= optional_fields(part) if is_dataclass(part) else set()
    return found


def test_none_never_means_not_decided() -> None:
    allowed = NOT_USED | {name for names in MEANING_OF_NONE.values() for name in names}
    assert optional_fields(Plan) == allowed
    undecided = {"task", "model", "weights", "lr", "epochs", "batch_size", "optimizer", "warmup_steps", "device"}
    assert undecided <= optional_fields(TrainConfig), "control"


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("machine", list(MACHINES))
def test_what_must_be_decided_is(kind: str, machine: str) -> None:
    plan = plan_of(kind, machine)
    for name, group in GROUPS.items():
        values = getattr(plan, name)
        for item in fields(group):
            if item.name not in optional_fields(group):
                assert getattr(values, item.name) is not None, item.name
    given = TrainConfig()
    chosen = {name for name, value in plan.values().items() if value != getattr(given, name)}
    assert chosen - set(plan.reasons) <= {"data", "eval_epochs", "norm_eval", "tile"}
    waiting = {"epochs", "warmup_steps", "milestones"} if plan.measure_epochs else set()
    assert len(plan.lines()) == len(set(plan.reasons) - waiting)


@pytest.mark.parametrize("kind", KINDS)
def test_the_saved_plan_leads_to_the_same_plan(kind: str) -> None:
    options = {"linear_probe_epochs": "half"} if kind in ("detect", "segment") else {}
    plan = plan_of(kind, schedule="multistep", epochs=6, **options)
    document = tomllib.loads(plan.to_toml("run"))
    assert list(document) == list(GROUPS), "a table for each group"
    options = replace(TrainConfig(**flat_options(document)), output=None)
    again = make_plan(options, table_of(kind), train_split(kind), MACHINES["cuda"])
    assert again.values() == plan.values()
    assert again.phases == plan.phases
    assert again.reasons == {}
    assert plan_of(kind, "cuda").values() != plan.values(), "control: another machine decides otherwise"


def test_config_toml_states_the_reasons() -> None:
    text = plan_of("segment").to_toml("runs/x")
    assert "image_size = 480  # a CPU needs twice the time for 800" in text
    assert 'output = "runs/x"' in text
    assert "resume" not in text


def test_measured_epochs_complete_a_plan() -> None:
    draft = plan_of("detect", minutes=3.0, schedule="multistep", batch_size=1)
    assert draft.measure_epochs
    assert not any(line.split()[0] in ("epochs", "warmup_steps", "milestones") for line in draft.lines())
    plan = with_epochs(draft, 9, "measured", images=40)
    assert not plan.measure_epochs
    assert (plan.training.epochs, plan.schedule.warmup_steps, plan.schedule.milestones) == (9, 36, [6, 8])
    assert plan.phases == (Phase(0, 9, "backbone", None, plan.optimizer.lr, "auto"),)
    user = with_epochs(plan_of("detect", minutes=3.0, warmup_steps=5, batch_size=1), 9, "measured", images=40)
    assert user.schedule.warmup_steps == 5


def pairs() -> list[tuple[str, str]]:
    return list(itertools.combinations(sorted(SAMPLES), 2))


@pytest.mark.parametrize("step", [8, pytest.param(1, marks=pytest.mark.slow)], ids=["an eighth", "all"])
def test_every_pair_of_options_gives_a_plan_or_a_refusal_that_names_an_option(step: int) -> None:
    assert set(SAMPLES) >= {item.name for item in fields(TrainConfig)} - {
        "data", "images", "annotations", "val_annotations", "classes", "split", "group", "fold", "split_file",
        "backbone", "output", "resume", "replay",
    }  # fmt: skip
    plans, refusals = 0, []
    for number, pair in enumerate(pairs()[::step]):
        kind = ("segment", "detect", "classify", "demo")[number % 4]
        try:
            plan = plan_of(kind, **{name: SAMPLES[name] for name in pair})
        except DataError as error:
            message = str(error)
            refusals.append((kind, pair, message))
        else:
            plans += 1
            assert plan.phases[-1].epochs == plan.training.epochs
            assert all(plan.values()[name] == SAMPLES[name] for name in pair)
    for kind, pair, message in refusals:
        named = set(re.findall(r"--([a-z0-9-]+)", message))
        assert named & {name.replace("_", "-") for name in pair}, (kind, pair, message)
    assert 0.6 < plans / len(pairs()[::step]) < 0.98, "control: both happen"


REFUSED = [
    ("segment", {"cache": "memory", "freeze": "none"}, "--cache memory: only features of a frozen backbone"),
    ("classify", {"freeze": "neck"}, "--freeze neck: resnet18 has no such part; use none, stem, backbone"),
    ("detect", {"model": "fcos_resnet18_fpn", "freeze": "rpn"}, "--freeze rpn: fcos_resnet18_fpn has no such part"),
    ("detect", {"trainable_layers": 9}, "--trainable-layers 9: the backbone of .* has 0 to 6"),
    ("detect", {"mask_rois_per_image": 3}, "--mask-rois-per-image 3: .* has no masks"),
    ("segment", {"anchor_sizes": [8]}, "--anchor-sizes .* has 3 feature maps"),
    ("segment", {"loss_weights": "keypoint=2"}, "--loss-weights keypoint=2: 'keypoint' is not a loss term"),
    ("segment", {"loss_weights": "rpn=2", "freeze": "rpn"}, "--loss-weights rpn=2: 'rpn' is not a loss term"),
    ("segment", {"class_transfer": "car=truck"}, "car"),
    ("segment", {"checkpoint_every": "soon"}, "--checkpoint-every soon"),
    ("segment", {"batch_size": 0}, "--batch-size 0"),
]


@pytest.mark.parametrize(("kind", "options", "expected"), REFUSED)
def test_what_would_fail_later_is_refused_in_the_plan(kind: str, options: dict[str, Any], expected: str) -> None:
    with pytest.raises(DataError, match=expected):
        plan_of(kind, **options)


def test_a_linear_probe_caches_its_own_phase_only() -> None:
    plan = plan_of("segment", linear_probe_epochs=1, freeze="stem", cache="memory", epochs=3)
    assert [phase.cache for phase in plan.phases] == ["memory", "off"]
    with pytest.raises(DataError, match="'objectness' is not a loss term"):
        plan_of("segment", freeze="rpn", loss_weights="objectness=2")


@pytest.mark.slow
@pytest.mark.parametrize("pair", random.Random(0).sample(pairs(), 30), ids="-".join)
def test_a_plan_that_was_made_can_be_trained(pair: tuple[str, str], parts: Path, tmp_path: Path) -> None:
    """Two steps with each pair that the plan accepts; a refusal is one of the plan."""
    options = {name: SAMPLES[name] for name in pair if name not in ("format", "cache_dir")}
    small = {
        "model": SAMPLES["model"], "weights": "none", "image_size": 64, "rois_per_image": 16, "batch_size": 2,
        "epochs": 2, "subset": 4, "workers": 0, "device": "cpu", "output": str(tmp_path / "run"),
    }  # fmt: skip
    small |= {"class_transfer": "nut="} if "class_transfer" in options else {}
    if "minutes" in options:
        del small["epochs"]
    config = TrainConfig(data=str(parts), **small | options | {"output": str(tmp_path / "run")})
    try:
        run = fit(config, reporter=silent())
    except DataError:
        assert not (tmp_path / "run" / "metrics.jsonl").exists(), "refused before the first step"
        return
    assert (run.folder / "best.safetensors").is_file()


ADD_AND_USE = """
import sys
from detseg.cli import parse
from detseg.options import TrainConfig
from detseg.options.field import help_text
sys.path.append(sys.argv[1])
from tests.training.test_decisions import MACHINES, table_of, train_split
from detseg.training.make_plan import make_plan
options = parse("train", ["x", "--added-option", "7"])
plan = make_plan(options, table_of("segment"), train_split("segment"), MACHINES["cpu"])
assert plan.checkpoints.added_option == 7, "its use reads it here"
assert "added_option = 7" in plan.to_toml("run")
assert TrainConfig(added_option=2).added_option == 2
try:
    parse("train", ["x", "--added-option", "0"])
except SystemExit as error:
    assert error.code == 2
else:
    raise AssertionError("its range is not checked")
print("ok")
"""


@pytest.mark.slow
def test_an_option_is_added_in_its_group_alone(tmp_path: Path) -> None:
    """One line in a group makes it flag, TOML key, keyword, help, range and part of the plan."""
    package = tmp_path / "detseg"
    package.mkdir()
    for path in PACKAGE.iterdir():
        if path.name != "options":
            (package / path.name).symlink_to(path)
    (package / "options").mkdir()
    for path in (PACKAGE / "options").glob("*.py"):
        text = path.read_text(encoding="utf-8")
        if path.name == "running.py":
            line = '    added_option: int = option(3, "an option of this test", least=1)\n'
            text = text.replace("    keep_checkpoints: int = option(", line + "    keep_checkpoints: int = option(")
        (package / "options" / path.name).write_text(text, encoding="utf-8")
    command = [sys.executable, "-c", ADD_AND_USE, str(ROOT)]
    environment = {"PYTHONPATH": str(tmp_path), "PATH": "", "OMP_NUM_THREADS": "1"}
    result = subprocess.run(command, env=environment, capture_output=True, text=True, cwd=tmp_path)
    assert result.stdout == "ok\n", result.stderr
    assert result.stderr == "detseg train: --added-option 0: it must be at least 1\n"


def test_lists_in_config_toml_are_those_of_the_options() -> None:
    plan = plan_of("segment", milestones=[1, 2], schedule="multistep", class_transfer=["a=b"])
    values = flat_options(tomllib.loads(plan.to_toml("run")))
    assert json.dumps(values["milestones"]) == "[1, 2]"
    assert values["class_transfer"] == ["a=b"]
