"""Old names keep working: commands, options, TOML keys and Python names as README showed them at commit 4150e88."""

from __future__ import annotations

import importlib
import json
import os
import re
import runpy
import shlex
import subprocess
import sys
import tomllib
from dataclasses import fields
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest
import torch

from detseg.old_names import OPTIONS as OPTIONS_TODAY
from detseg.options import BaselineConfig

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
SURFACE: dict[str, Any] = json.loads((HERE / "surface.json").read_text(encoding="utf-8"))
OF_TRANSFER = ("budgets", "arms", "bundled", "imagenet")
"""Options of ``benchmark transfer``, which all comparisons of ``benchmark`` had."""
CONFIGS = sorted((HERE / "configs").glob("*.toml"))
OPTIONS = [(verb, option) for verb, options in SURFACE["options"].items() for option in options]
BY_FLAG = [(verb, option) for verb, option in OPTIONS if option.get("position") in (None, "optional")]
NAMES = sorted(
    {*SURFACE["python"]["readme"]}
    | {f"{package}:{name}" for package, names in SURFACE["python"]["packages"].items() for name in names}
)

pytestmark = [pytest.mark.filterwarnings(f"ignore::{kind}") for kind in ("DeprecationWarning", "FutureWarning")]


def parse(verb: str, arguments: list[str]) -> Any:
    from detseg.cli import parse as parse_command

    return parse_command(verb, arguments)


@cache
def without(verb: str, key: str, *arguments: str) -> Any:
    """The options of a verb where nothing is given but what it cannot do without."""
    return parse(verb, [*context(verb, key), *arguments])


def words(key: str, value: Any) -> list[str]:
    """An option as words of a command line."""
    flag = key.replace("_", "-")
    if isinstance(value, bool):
        return [f"--{flag}" if value else f"--no-{flag}"]
    return [f"--{flag}", value if isinstance(value, str) else json.dumps(value, separators=(",", ":"))]


def context(verb: str, key: str = "") -> list[str]:
    """The words that a verb cannot do without; each comparison of ``benchmark`` has options of its own now."""
    return ["transfer"] if verb == "benchmark" and key in OF_TRANSFER else SURFACE["contexts"][verb]


def given(verb: str, option: dict[str, Any], value: Any) -> list[str]:
    """A command line's words with one option, after those that the verb cannot do without."""
    needed = [*context(verb, option["key"]), *option.get("with", [])]
    if option.get("position"):
        return [*needed, value]
    return [*needed, *words(option["key"], value)]


def one_key(folder: Path, verb: str, key: str, value: Any) -> list[str]:
    """``--config`` with a file of one key (and what ``benchmark`` compares, without which it takes no file)."""
    needed = f'what = "{context(verb, key)[0]}"\n' if verb == "benchmark" else ""
    (folder / "one.toml").write_text(f"{needed}{key} = {json.dumps(value)}\n", encoding="utf-8")
    return ["--config", str(folder / "one.toml")]


def label(value: Any) -> str:
    return value["key"] if isinstance(value, dict) else getattr(value, "stem", str(value))


def read_command(text: str) -> tuple[str, list[str]] | None:
    """The verb and the arguments of a command as README shows it; None for ``python -m detseg.demo``."""
    arguments = shlex.split(text, comments=True)
    place = next(i for i, word in enumerate(arguments) if word in SURFACE["scripts"] or word in SURFACE["modules"])
    name, rest = arguments[place], arguments[place + 1 :]
    if name in SURFACE["scripts"]:
        return SURFACE["scripts"][name], rest
    return ("pretrain", rest) if name == "detseg.pretrain" else None


# Command lines


@pytest.mark.parametrize("text", sorted({command["text"] for command in SURFACE["commands"]}))
def test_an_old_command_parses(text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = tmp_path / "runs" / "cells"
    run.mkdir(parents=True)
    (run / "config.toml").write_bytes((HERE / "configs" / "segment.toml").read_bytes())
    monkeypatch.chdir(tmp_path)
    command = read_command(text)
    if command is None:
        assert text.startswith("python -m detseg.demo"), "it has a parser of its own, see below"
    else:
        parse(*command)


@pytest.mark.parametrize("verb", SURFACE["console"])
def test_an_old_verb_has_help(verb: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as left:
        parse(verb, ["--help"])
    assert left.value.code in (0, None)
    assert verb in capsys.readouterr().out


@pytest.mark.parametrize(("verb", "option"), BY_FLAG, ids=label)
def test_an_old_option_is_flag_and_toml_key(verb: str, option: dict[str, Any], tmp_path: Path) -> None:
    """Each sample parses; flag and key mean the same; and what is not the default is not taken for it."""
    plain = without(verb, option["key"], *option.get("with", []))
    for sample in option["samples"]:
        if (option["key"], sample) == ("batch_size", 0) and verb in ("evaluate", "pretrain"):
            continue  # it was parsed, and refused or replaced later
        config = parse(verb, given(verb, option, sample))
        assert (config == plain) == (sample == option["default"]), sample
    key = one_key(tmp_path, verb, option["key"], sample)
    assert parse(verb, [*context(verb, option["key"]), *option.get("with", []), *key]) == config


def test_benchmark_takes_the_options_of_train_that_do_not_contradict_it() -> None:
    """The others, such as --minutes, were refused when it ran, or had no effect; now the parser refuses them."""
    inherited = {option["key"]: option for option in SURFACE["options"]["train"]}
    assert set(SURFACE["inherited"]["benchmark"]) == set(inherited)
    kept = {item.name for item in fields(BaselineConfig)} | {
        old for old, new in OPTIONS_TODAY.items() if hasattr(BaselineConfig, new)
    }
    flags = [
        word
        for key, option in inherited.items()
        if not option.get("position") and key not in ("annotations", "val_annotations") and key in kept
        for word in words(key, option["samples"][-1])
    ]
    assert len(flags) > 50
    config = parse("benchmark", ["plain", "DATA", *flags])
    assert config != parse("benchmark", ["plain", "DATA"])


@pytest.mark.parametrize("verb", list(SURFACE["options"]))
def test_null_is_the_default(verb: str) -> None:
    """Of numbers and lists; a text may be "null"."""
    flags = [
        word
        for option in SURFACE["options"][verb]
        if option["key"] not in OF_TRANSFER
        if option["default"] is None and not isinstance(option["samples"][0], str | bool)
        for word in (f"--{option['key'].replace('_', '-')}", "null")
    ]
    assert parse(verb, [*SURFACE["contexts"][verb], *flags]) == parse(verb, SURFACE["contexts"][verb])


@pytest.mark.parametrize("verb", list(SURFACE["options"]))
def test_control_an_unknown_option_fails(verb: str, tmp_path: Path) -> None:
    needed = SURFACE["contexts"][verb]
    for wrong in (["--no-such-option", "1"], one_key(tmp_path, verb, "no_such_option", 1)):
        with pytest.raises(SystemExit) as left:
            parse(verb, [*needed, *wrong])
        assert left.value.code == 2


def test_control_an_unknown_choice_fails(tmp_path: Path) -> None:
    for key in ("freeze", "augment", "recipe", "cache"):
        for wrong in (words(key, "no-such-choice"), one_key(tmp_path, "train", key, "no-such-choice")):
            with pytest.raises(SystemExit) as left:
                parse("train", wrong)
            assert left.value.code == 2


# Files of options


@pytest.mark.parametrize("path", CONFIGS, ids=label)
def test_an_old_config_file_is_read(path: Path) -> None:
    """By ``--config``, as flags, and (where a script has one) by the keywords of ``TrainConfig``: all the same."""
    from detseg import TrainConfig

    verb = "pretrain" if path.stem == "pretrain-scenes" else "train"
    values = tomllib.loads(path.read_text(encoding="utf-8"))
    config = parse(verb, ["--config", str(path)])
    data = values.pop("data")
    assert parse(verb, [data, *(word for key, value in values.items() for word in words(key, value))]) == config
    assert config != parse(verb, [data])
    if verb == "train":
        assert TrainConfig(data=data, **values) == config


# Python


@pytest.mark.parametrize("name", NAMES)
def test_an_old_name_can_be_imported(name: str) -> None:
    module, _, attribute = name.partition(":")
    found: dict[str, Any] = {}
    exec(f"from {module} import {attribute} as found", found)
    assert found["found"] is not None


def test_control_an_unknown_name_fails() -> None:
    for module in SURFACE["python"]["packages"]:
        assert not hasattr(importlib.import_module(module), "no_such_name")
        with pytest.raises(ImportError):
            importlib.import_module(f"{module}.no_such_module")


def block(name: str, **changes: str) -> Any:
    """README's Python of that time, compiled, with what a test cannot have changed."""
    code = (HERE / f"old_readme_{name}.py.txt").read_text(encoding="utf-8")
    for written, here in changes.items():
        assert written in code
        code = code.replace(written, here)
    return compile(code, f"old_readme_{name}.py.txt", "exec")


def run_module(*arguments: str) -> str:
    """``python -m ...`` from the root of this checkout."""
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", *arguments]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Rendered by the old command."""
    folder = tmp_path_factory.mktemp("demo") / "DATA"
    run_module("detseg.demo", str(folder), "--seed", "7", "--train", "1", "--val", "1")
    return folder


def test_the_old_notebook_runs(demo: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(demo.parent)
    changes = {
        '"PICTURE"': repr(str(next((demo / "val").iterdir()))),
        'weights="coco"': 'weights="bundled"',
        "maskrcnn_resnet50_fpn": "maskrcnn_mobilenet_v3_large_fpn_slim",
        "image_size=480": "image_size=96, rois_per_image=16",
        "range(2)": "range(1)",
    }
    names: dict[str, Any] = {}
    exec(block("notebook", **changes), names)
    learns = {name for name, parameter in names["model"].named_parameters() if parameter.requires_grad}
    body = {name for name, _ in names["model"].named_parameters() if name.startswith("backbone.body.")}
    assert learns, "the neck and the heads"
    assert body, "torchvision's names of weights are kept"
    assert not learns & body, 'freeze_level="body"'
    assert names["created"].lines
    assert {"bbox", "segm"} <= set(names["metrics"].to_dict())
    assert names["prediction"].masks().shape[0] == len(names["prediction"].boxes)
    assert names["picture"].ndim == 3


class MyModule(torch.nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.layer = torch.nn.Linear(width, 2)


def test_the_old_lines_for_own_scripts_and_modules_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    from detseg import load
    from detseg.engine import save_checkpoint

    names: dict[str, Any] = {}
    exec(block("own_script_imports"), names)
    assert callable(names["utils"].collate_fn), "as the Penn-Fudan tutorial uses it"
    assert callable(names["evaluate"])
    assert callable(names["train_one_epoch"])
    names = {"save_checkpoint": save_checkpoint, "load": load, "MyModule": MyModule, "model": MyModule(64)}
    before = names["model"].layer.weight.tolist()
    exec(block("own_module"), names)
    assert names["model"].layer.weight.tolist() == before


def test_the_old_lines_for_own_data_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    images = [(PIL.Image.new("RGB", (32, 32), colour), index) for index, colour in enumerate(("red", "blue"))] * 16

    class Drawn(list):
        classes = ("red", "blue")

    def network() -> torch.nn.Module:
        return torch.nn.Sequential(torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten(), torch.nn.Linear(3, 2))

    monkeypatch.setattr("torchvision.datasets.CIFAR10", lambda folder, train: Drawn(images))
    names: dict[str, Any] = {"MyNet": network}
    exec(block("own_data"), names)
    image = names["LabelledPictures"](images, names["model"].preprocessing, classes=Drawn.classes)[0][0]
    before, after = (model.eval()([image])[0].probabilities for model in (names["model"], names["again"]))
    assert np.array_equal(before, after)


def test_old_keywords_of_create_model() -> None:
    """Those that README's prose is about but its code does not show."""
    from detseg import create_model

    for level in ("none", "stem", "body", "neck", "rpn"):
        created = create_model(
            "fasterrcnn_mobilenet_v3_large_fpn_slim", ["a"], weights="bundled", freeze_level=level, norm_eval=True
        )
        assert any(not p.requires_grad for p in created.model.parameters()) == (level != "none")
    rows = create_model(
        "maskrcnn_mobilenet_v3_large_fpn_slim", ["a"], weights="none", class_rows=None, trainable_layers=2
    )
    assert rows.report is not None


# Modules and scripts


@pytest.mark.parametrize("module", SURFACE["modules"])
def test_an_old_module_has_help(module: str) -> None:
    verb = ["train"] if module == "detseg.cli" else []
    assert "usage" in run_module(module, *verb, "--help").lower()


@pytest.mark.parametrize(("script", "verb"), SURFACE["scripts"].items())
def test_an_old_script_has_help(
    script: str, verb: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", [script, "--help"])
    with pytest.raises(SystemExit) as left:
        runpy.run_path(str(ROOT / script), run_name="__main__")
    assert left.value.code in (0, None)
    assert re.search(rf"detseg {verb}\b", capsys.readouterr().out)
