"""What a command imports before it works, and how long it takes: help is fast, and only networks need torch."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

from detseg.annotations.formats.all_formats import FORMATS
from detseg.command_line.commands import BENCHMARKS, COMMANDS

HEAVY = {"torch", "torchvision", "albumentations", "timm", "keras", "scipy", "matplotlib", "pandas", "sklearn"}
"""Libraries that a command without a network does not need."""

NOT_FOR_HELP = HEAVY | {"numpy", "cv2", "PIL", "pycocotools", "hotcoco", "msgspec", "argparse", "yaml", "tqdm"}

HELP_LIMIT = 4.0
"""Help takes at most this many times as long as ``python -c pass``."""

WORK_LIMIT = 10.0
"""A command on small data takes at most this many times as long as the import of numpy and OpenCV."""

WRITTEN = [format.name for format in FORMATS if format.write is not None]


def loaded(*commands: list[str], exit_code: int = 0) -> set[str]:
    """The libraries that are loaded after ``commands`` have run in one new process."""
    code = (
        "import json, sys\n"
        "from detseg.cli import main\n"
        "for arguments in json.loads(sys.argv[1]):\n"
        "    try:\n"
        "        code = main(arguments)\n"
        "    except SystemExit as error:\n"
        "        code = error.code\n"
        "    assert code == int(sys.argv[2]), (code, arguments)\n"
        "print(json.dumps(sorted(name for name in sys.modules if '.' not in name)))\n"
    )
    result = subprocess.run(
        [sys.executable, "-c", code, json.dumps(commands), str(exit_code)], capture_output=True, text=True
    )
    assert result.returncode == 0, result.stderr
    return set(json.loads(result.stdout.splitlines()[-1]))


def seconds(*arguments: str, times: int = 1) -> float:
    """Processor time of a new Python process, the least of several: other programs that run do not change it."""
    taken = []
    for _ in range(times):
        before = children_seconds()
        subprocess.run([sys.executable, *arguments], capture_output=True, check=True)
        taken.append(children_seconds() - before)
    return min(taken)


def children_seconds() -> float:
    """Processor time of all child processes that have ended; it skips the test on Windows, which does not tell it."""
    resource = pytest.importorskip("resource")
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return float(usage.ru_utime + usage.ru_stime)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Two images with an object each, with box, mask and 17 keypoints, and results for them."""
    images = [{"id": i, "width": 64, "height": 64, "file_name": f"{i}.png"} for i in (1, 2)]
    box = {"category_id": 1, "bbox": [10, 10, 30, 30]}
    mask = {"segmentation": [[10, 10, 40, 10, 40, 40, 10, 40]]}
    keypoints = {"keypoints": [10, 10, 2] * 17}
    annotation = box | mask | {"area": 900, "iscrowd": 0}
    category = {"id": 1, "name": "part"}
    folder = tmp_path / "data"
    folder.mkdir()
    for image in images:
        cv2.imwrite(str(folder / str(image["file_name"])), np.full((64, 64, 3), 40 * int(str(image["id"])), np.uint8))
    ground_truth = {
        "images": images,
        "annotations": [annotation | {"id": i, "image_id": i} for i in (1, 2)],
        "categories": [category],
    }
    (folder / "labels.json").write_text(json.dumps(ground_truth))
    for item in ground_truth["annotations"]:
        item.update(keypoints, num_keypoints=17)
    category["keypoints"] = [f"k{i}" for i in range(17)]
    (tmp_path / "gt.json").write_text(json.dumps(ground_truth))
    for name, shape in (("boxes", {}), ("masks", mask), ("keypoints", keypoints)):
        (tmp_path / f"{name}.json").write_text(json.dumps([box | shape | {"image_id": 1, "score": 0.9}]))
    return folder


def light_commands(data: Path, output: Path) -> dict[str, list[list[str]]]:
    """Verb -> command lines with every kind of its input that needs no network."""
    parent = data.parent
    scored = [
        ["evaluate", "--predictions", str(parent / f"{name}.json"), "--ground-truth", str(parent / "gt.json")]
        for name in ("boxes", "masks", "keypoints")
    ]
    return {
        "inspect": [["inspect", str(data), "--output", str(output)]],
        "convert": [["convert", str(data), str(output / name), "--to", name] for name in WRITTEN],
        "evaluate": [*scored, [*scored[0], "--reference"], [*scored[0], "--output", str(output)]],
    }


@pytest.mark.parametrize("option", ["--help", "--help-all"])
def test_help_loads_no_library(option: str) -> None:
    verbs = [[name] for name in COMMANDS] + [["benchmark", name] for name in BENCHMARKS]
    assert (
        not loaded(["--version"], [option], ["benchmark", option], *([*verb, option] for verb in verbs)) & NOT_FOR_HELP
    )


def test_wrong_arguments_load_no_library() -> None:
    assert not loaded(["train", "--epochs", "x"], ["fly"], ["predict"], exit_code=2) & NOT_FOR_HELP


@pytest.mark.parametrize("command", ["inspect", "convert", "evaluate"])
def test_commands_without_a_network_load_no_torch(command: str, data: Path, tmp_path: Path) -> None:
    libraries = loaded(*light_commands(data, tmp_path / "output")[command])
    assert "numpy" in libraries, "control: libraries are seen"
    assert not libraries & HEAVY


def test_help_is_fast() -> None:
    commands = {
        "python": ["-c", "pass"],
        "all commands": ["-m", "detseg", "--help"],
        "train": ["-m", "detseg", "train", "--help"],
        "control": ["-c", "import detseg.cli, numpy, cv2"],
    }
    taken = [{name: seconds(*arguments) for name, arguments in commands.items()} for _ in range(5)]
    ratio = {name: min(run[name] for run in taken) / min(run["python"] for run in taken) for name in commands}
    assert max(ratio["all commands"], ratio["train"]) < HELP_LIMIT < ratio["control"], ratio


def test_small_data_are_fast(data: Path, tmp_path: Path) -> None:
    limit = WORK_LIMIT * seconds("-c", "import numpy, cv2", times=3)
    for command, lines in light_commands(data, tmp_path / "output").items():
        assert seconds("-m", "detseg", *lines[0]) < limit, command


def test_control_training_loads_torch_and_takes_longer(tmp_path: Path) -> None:
    limit = WORK_LIMIT * seconds("-c", "import numpy, cv2", times=3)
    before = children_seconds()
    assert "torch" in loaded(["train", str(tmp_path / "nowhere")], exit_code=1)
    assert children_seconds() - before > limit
