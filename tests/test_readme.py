"""README is code: its recipes run on a small set, its commands parse, its files exist."""

from __future__ import annotations

import re
import shlex
import shutil
from itertools import pairwise
from pathlib import Path
from typing import Any

import PIL.Image
import pytest
import torch

from detseg.annotations import read, subset, write_coco
from detseg.cli import main, parse
from detseg.models import MODELS

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
DATA_README = (ROOT / "data" / "README.md").read_text(encoding="utf-8")
VERBS = {
    **{f"{verb}.py": verb for verb in ("train", "evaluate", "predict", "convert", "benchmark")},
    "inspect_data.py": "inspect",
}
SMALL = [
    *("--model", "maskrcnn_mobilenet_v3_large_fpn_slim", "--image-size", "64", "--epochs", "1"),
    *("--rois-per-image", "16", "--workers", "0", "--device", "cpu"),
]
"""Given after the recipe's own flags: a network that is quick on two cores."""


def blocks(language: str) -> list[str]:
    return re.findall(rf"<!-- recipe -->\n```{language}\n(.*?)```", README, flags=re.DOTALL)


def commands(text: str) -> list[str]:
    return re.findall(r"^python (tools/.*)$", text, flags=re.MULTILINE)


def after(arguments: list[str], flag: str) -> list[str]:
    """The value of a flag, if it is given."""
    return [value for name, value in pairwise(arguments) if name == flag]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with DATA (ten images of the demo set with its own parts) and IMAGES in it."""
    folder = tmp_path_factory.mktemp("recipes")
    table = read(ROOT / "data" / "demo")
    for part, count in (("train", 6), ("val", 4)):
        rows = [row for row in range(len(table)) if table.split[row] == part]
        chosen = subset(table.subset(rows), count, 0)
        write_coco(chosen, folder / "DATA" / f"instances_{part}.json")
        (folder / "DATA" / part).mkdir()
        for record in chosen:
            shutil.copy(record.path, folder / "DATA" / part)
    shutil.copytree(folder / "DATA" / "val", folder / "IMAGES")
    return folder


@pytest.mark.slow
def test_recipes_run_in_order(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(place)
    found = [command for block in blocks("bash") for command in commands(block)]
    assert len(found) >= 12
    for command in found:
        script, *arguments = shlex.split(command)
        verb = VERBS[Path(script).name]
        if verb == "train" and "--resume" not in arguments:
            of_a_run = any(argument.startswith("runs/") for argument in after(arguments, "--weights"))
            weights = [] if of_a_run else ["--weights", "none"]
            timed = ["--epochs", "null", "--minutes", "0.01"] if "--minutes" in arguments else []
            two = ["--epochs", "2"] if "--linear-probe-epochs" in arguments else []
            arguments += SMALL + weights + timed + two
        assert main([verb, *arguments]) == 0, command
    assert {"best.safetensors", "config.toml", "split.json", "metrics.jsonl", "metrics.json", "predictions.json",
            "predictions.jpg"} <= {path.name for path in (place / "runs" / "cells").iterdir()}  # fmt: skip
    assert (place / "out" / "predictions.json").is_file()


def test_notebook_runs(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(place)
    (code,) = blocks("python")
    image = next((place / "IMAGES").glob("*.jpg"))
    for written, here in (
        ("IMAGE", str(image)),
        ('weights="coco"', 'weights="none"'),
        ("maskrcnn_resnet50_fpn", "maskrcnn_mobilenet_v3_large_fpn_slim"),
        ('freeze_level="backbone", image_size=480', "image_size=96, rois_per_image=16"),
        ("range(2)", "range(1)"),
    ):
        assert written in code
        code = code.replace(written, here)
    names: dict[str, object] = {}
    exec(compile(code, "README.md", "exec"), names)
    assert {"bbox", "segm"} <= set(names["metrics"].to_dict())  # type: ignore[attr-defined]
    assert names["image"].ndim == 3  # type: ignore[attr-defined]


def test_own_data_and_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With images drawn on the spot instead of CIFAR10's, two solid colours."""
    monkeypatch.chdir(tmp_path)
    (code,) = re.findall(r"<!-- own data -->\n```python\n(.*?)```", README, flags=re.DOTALL)
    images = [(PIL.Image.new("RGB", (32, 32), colour), index) for index, colour in enumerate(("red", "blue"))] * 16

    class Drawn(list):  # type: ignore[type-arg]
        classes = ("red", "blue")

    def network() -> torch.nn.Module:
        return torch.nn.Sequential(torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten(), torch.nn.Linear(3, 2))

    monkeypatch.setattr("torchvision.datasets.CIFAR10", lambda folder, train: Drawn(images))
    names: dict[str, Any] = {"MyNet": network}
    exec(compile(code, "README.md", "exec"), names)
    image = names["LabelledImages"](images, names["model"].preprocessing, classes=Drawn.classes)[0][0]
    before, after = (model.eval()([image])[0].probabilities for model in (names["model"], names["again"]))
    assert before.tolist() == after.tolist()


@pytest.mark.parametrize("command", sorted({*commands(README), *commands(DATA_README)}))
def test_every_command_parses(command: str) -> None:
    script, *arguments = shlex.split(command)
    if "--config" in arguments:
        return  # names a file that only a run writes; run above
    parse(VERBS[Path(script).name], arguments)


def test_links_lead_somewhere() -> None:
    for text, folder in ((README, ROOT), (DATA_README, ROOT / "data")):
        for target in re.findall(r"\]\((?!https?:)([^)#]+)", text):
            assert (folder / target).exists(), target


def test_every_model_is_listed_and_every_listed_model_exists() -> None:
    section = README.split("## Models")[1].split("##")[0]
    backbones: list[str] = []
    names: set[str] = set()
    for line in section.splitlines():
        found = re.findall(r"`([^`]+)`", line)
        if "|" not in line or not found or "--backbone" in line:
            continue
        if "the same, but" in line:
            prefix, without = found
            names |= {prefix + backbone for backbone in backbones if backbone != without}
        elif "` + `" in line:
            prefix, *after = found
            backbones = after if prefix == "fasterrcnn_" else backbones
            names |= {prefix + backbone for backbone in after}
        else:
            names |= set(found)
    assert names == set(MODELS)


def test_the_two_set_up_commands_are_marked_for_continuous_integration() -> None:
    for marker in ("main-job", "tests"):
        assert re.search(rf"<!-- {marker} -->\n```bash\n.+\n```", README), marker
    assert "<!-- $1 -->" in (ROOT / ".ci" / "run").read_text(encoding="utf-8")
