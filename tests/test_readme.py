"""READMEs are executed: recipes run on a small data set, commands parse, Python blocks run, links and paths exist."""

from __future__ import annotations

import re
import shlex
import shutil
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import PIL.Image
import pytest
import torch

from detseg.annotations import read, subset, write_coco
from detseg.cli import main, parse
from detseg.datasets import Dataset, LabelledImages, data_loader
from detseg.models import MODELS, OwnClassifier
from detseg.preprocess import Preprocessing
from detseg.synthetic.demo import __main__ as demo_command
from detseg.synthetic.demo.render import demo_folder
from detseg.training.time_limit import TimeLimit

ROOT = Path(__file__).resolve().parents[1]
READMES = sorted(
    path.relative_to(ROOT).as_posix()
    for path in [
        ROOT / "README.md",
        *(path for top in ("data", "detseg", "tests", "tools") for path in (ROOT / top).rglob("README.md")),
    ]
)
TEXTS = {name: (ROOT / name).read_text(encoding="utf-8") for name in READMES}
MAIN, TOOLS = TEXTS["README.md"], TEXTS["tools/README.md"]
MAX_BYTES = 10_000
"""Size limit of the main README; details belong into the others."""

VERBS = {
    **{f"{verb}.py": verb for verb in ("train", "evaluate", "predict", "convert", "describe", "benchmark")},
    **{f"{verb}.py": verb for verb in ("serve", "client", "export")},
    "inspect_data.py": "inspect",
}
SMALL = [
    *("--model", "maskrcnn_mobilenet_v3_large_fpn_slim", "--image-size", "64", "--epochs", "1"),
    *("--rois-per-image", "16", "--workers", "0", "--device", "cpu"),
]
"""Appended to the options of a recipe: a network that is fast on two cores."""

RUN_FILES = {"best.safetensors", "last.safetensors", "config.toml", "split.json", "metrics.jsonl", "metrics.json",
             "predictions.json", "curves.png", "predictions.jpg"}  # fmt: skip


def blocks(text: str, marker: str, language: str) -> list[str]:
    """Contents of the fenced blocks that follow ``<!-- marker -->``."""
    return re.findall(rf"<!-- {marker} -->\n```{language}\n(.*?)```", text, flags=re.DOTALL)


def commands(text: str) -> list[str]:
    """Command lines of the scripts in ``tools/``: script and arguments."""
    return re.findall(r"^python (tools/.*)$", text, flags=re.MULTILINE)


def commands_in_any_form(text: str) -> Iterator[tuple[str, list[str]]]:
    """Command and arguments of every command line, in blocks and inline code, with torchrun or as a module, too."""
    inline = re.findall(r"`((?:python|torchrun|detseg) [^`]*)`", re.sub(r"```.*?```", "", text, flags=re.DOTALL))
    for line in [*re.findall(r"^(?:python|torchrun) .*$", text, flags=re.MULTILINE), *inline]:
        words = shlex.split(line, comments=True)
        if words[0] == "detseg" and len(words) > 2:
            yield words[1], words[2:]
        for index, word in enumerate(words):
            if word.startswith("tools/"):
                yield VERBS[Path(word).name], words[index + 1 :]
            elif word == "detseg" and words[index - 1] == "-m" and len(words) > index + 1:
                yield words[index + 1], words[index + 2 :]


def values_of(arguments: list[str], option: str) -> list[str]:
    """The value of an option, if it is given."""
    return [value for name, value in pairwise(arguments) if name == option]


def anchors(text: str) -> set[str]:
    """Anchors of the headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.*)$", re.sub(r"```.*?```", "", text, flags=re.DOTALL), flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.fixture
def work_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, with DATA (ten images of the demo set with its splits) and IMAGES in it."""
    table = read(ROOT / "data" / "demo")
    for split, count in (("train", 6), ("val", 4)):
        rows = [row for row in range(len(table)) if table.split[row] == split]
        chosen = subset(table.subset(rows), count, 0)
        write_coco(chosen, tmp_path / "DATA" / f"instances_{split}.json")
        (tmp_path / "DATA" / split).mkdir()
        for record in chosen:
            shutil.copy(record.path, tmp_path / "DATA" / split)
    shutil.copytree(tmp_path / "DATA" / "val", tmp_path / "IMAGES")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.slow
@pytest.mark.parametrize(("name", "count"), [("README.md", 6), ("tools/README.md", 23)])
def test_recipes_run_in_order(name: str, count: int, work_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(TimeLimit, "epochs_that_fit", lambda *_: 1)  # --minutes 20 would take them
    recipes = [command for block in blocks(TEXTS[name], "recipe", "bash") for command in commands(block)]
    assert len(recipes) >= count
    for command in recipes:
        script, *arguments = shlex.split(command)
        verb = VERBS[Path(script).name]
        if verb == "train" and "--resume" not in arguments:
            local = any(value == "bundled" or value.startswith("runs/") for value in values_of(arguments, "--weights"))
            weights = [] if local else ["--weights", "none"]
            minutes = ["--epochs", "null"] if "--minutes" in arguments else []
            epochs = ["--epochs", "2"] if "--linear-probe-epochs" in arguments else []
            arguments += SMALL + weights + minutes + epochs
        assert main([verb, *arguments]) == 0, command
    assert {path.name for path in (work_folder / "runs" / "cells").iterdir()} >= RUN_FILES
    assert (work_folder / "out" / "predictions.json").is_file()
    assert len(list((work_folder / "out" / "images").iterdir())) == 4


def test_notebook_runs(work_folder: Path) -> None:
    (code,) = blocks(MAIN, "recipe", "python")
    image = next((work_folder / "IMAGES").glob("*.jpg"))
    for written, replacement in (
        ("IMAGE", str(image)),
        ('weights="coco"', 'weights="none"'),
        ("maskrcnn_resnet50_fpn", "maskrcnn_mobilenet_v3_large_fpn_slim"),
        ('freeze_level="backbone", image_size=480', "image_size=96, rois_per_image=16"),
        ("range(2)", "range(1)"),
    ):
        assert written in code
        code = code.replace(written, replacement)
    names: dict[str, object] = {}
    exec(compile(code, "README.md", "exec"), names)
    assert {"bbox", "segm"} <= set(names["metrics"].to_dict())  # type: ignore[attr-defined]
    assert names["image"].ndim == 3  # type: ignore[attr-defined]


def test_imports_for_a_training_script() -> None:
    (code,) = blocks(TOOLS, "script imports", "python")
    names: dict[str, Any] = {}
    exec(compile(code, "tools/README.md", "exec"), names)
    assert callable(names["utils"].collate_fn)
    assert callable(names["train_one_epoch"])
    assert callable(names["evaluate"])


def test_one_epoch(capsys: pytest.CaptureFixture[str]) -> None:
    (code,) = blocks(TOOLS, "one epoch", "python")
    images = [torch.rand((3, 32, 32)) for _ in range(4)]
    samples = [(image, {"class_index": torch.tensor(index % 2)}) for index, image in enumerate(images)]
    network = torch.nn.Sequential(torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten(), torch.nn.Linear(3, 2))
    model = OwnClassifier(network, ["red", "blue"], image_size=32)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    loader = data_loader(samples, 1)  # type: ignore[arg-type]
    names: dict[str, Any] = {"model": model, "optimizer": optimizer, "loader": loader, "device": torch.device("cpu")}
    exec(compile(code, "tools/README.md", "exec"), names)
    assert (names["stats"].steps, names["ema"].updates) == (2, 4)
    assert capsys.readouterr().out.count("{'accuracy': ") == 2
    assert torch.equal(model.state_dict()["network.2.weight"], names["ema"].weights["network.2.weight"])


def test_weighted_sampling() -> None:
    (code,) = blocks(TOOLS, "weighted sampling", "python")
    table = read(demo_folder())
    dataset = Dataset(table, Preprocessing(64, 64), task="detect")
    names: dict[str, Any] = {"dataset": dataset}
    exec(compile(code, "tools/README.md", "exec"), names)
    assert len(list(names["loader"].sampler)) == len(table)


def test_tracker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (code,) = blocks(TOOLS, "tracker", "python")
    tracker = code[code.index("class") :].partition("\n\nreporter")[0]
    assert len(tracker.splitlines()) <= 10
    names: dict[str, Any] = {}
    exec(compile(code, "tools/README.md", "exec"), names)
    names["reporter"].epoch({"epoch": 1, "train_loss": 0.5}, 9, True, "epoch 1")
    names["reporter"].line("nothing to track")
    assert (tmp_path / "log.jsonl").read_text() == '{"epoch": 1, "train_loss": 0.5}\n'


def test_own_module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (code,) = blocks(TOOLS, "own module", "python")

    def network(width: int) -> torch.nn.Module:
        return torch.nn.Linear(width, 3)

    model = network(64)
    names: dict[str, Any] = {"model": model, "MyModule": network}
    exec(compile(code, "tools/README.md", "exec"), names)
    assert names["model"] is not model
    assert torch.equal(names["model"].weight, model.weight)


def test_own_data_and_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With generated images of two solid colours instead of CIFAR10."""
    monkeypatch.chdir(tmp_path)
    (code,) = blocks(TOOLS, "own data", "python")
    images = [(PIL.Image.new("RGB", (32, 32), colour), index) for index, colour in enumerate(("red", "blue"))] * 16

    class Colours(list):  # type: ignore[type-arg]
        classes = ("red", "blue")

    def network() -> torch.nn.Module:
        return torch.nn.Sequential(torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten(), torch.nn.Linear(3, 2))

    monkeypatch.setattr("torchvision.datasets.CIFAR10", lambda folder, train: Colours(images))
    names: dict[str, Any] = {"MyNet": network}
    exec(compile(code, "tools/README.md", "exec"), names)
    image = LabelledImages(images, names["model"].preprocessing, classes=Colours.classes)[0][0]
    saved, loaded = (model.eval()([image])[0].probabilities for model in (names["model"], names["reloaded"]))
    assert saved.tolist() == loaded.tolist()


def test_every_python_block_is_executed_by_a_test() -> None:
    marked = [blocks(TEXTS[name], marker, "python") for name, marker in (
        ("README.md", "recipe"), ("tools/README.md", "script imports"), ("tools/README.md", "own module"),
        ("tools/README.md", "own data"), ("tools/README.md", "one epoch"), ("tools/README.md", "figures"),
        ("tools/README.md", "weighted sampling"), ("tools/README.md", "tracker"))]  # fmt: skip
    assert all(len(found) == 1 for found in marked)
    assert sum(text.count("```python\n") for text in TEXTS.values()) == len(marked)


@pytest.mark.parametrize("command", sorted({command for text in TEXTS.values() for command in commands(text)}))
def test_every_command_parses(command: str) -> None:
    script, *arguments = shlex.split(command)
    if "--config" in arguments:
        return  # the file is written by a run; the recipe is executed above
    parse(VERBS[Path(script).name], arguments)


@pytest.mark.parametrize("name", READMES)
def test_commands_in_text_and_with_torchrun_parse(name: str) -> None:
    for verb, arguments in commands_in_any_form(TEXTS[name]):
        if "--config" not in arguments:
            parse(verb, arguments)


def test_control_commands_are_found_in_any_form() -> None:
    text = (
        "Run `python tools/train.py A` or\n```\ntorchrun --nproc-per-node 2 -m detseg pretrain B\n```\n`detseg train C`"
    )
    assert sorted(commands_in_any_form(text)) == [("pretrain", ["B"]), ("train", ["A"]), ("train", ["C"])]
    with pytest.raises(SystemExit):
        parse("train", ["--no-such-option", "1"])


def test_demo_commands_parse(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rendered: list[dict[str, int]] = []
    monkeypatch.setattr(demo_command, "render", lambda folder, **options: rendered.append(options))
    lines = re.findall(r"python -m detseg\.synthetic\.demo ([^`#\n]*)", "\n".join(TEXTS.values()))
    for line in lines:
        demo_command.main([str(tmp_path), *shlex.split(line)[1:]])
    assert {"train": 120, "val": 40, "seed": 0} in rendered
    assert {"train": 500, "val": 100, "seed": 7} in rendered


@pytest.mark.parametrize("name", READMES)
def test_links_lead_somewhere(name: str) -> None:
    folder = (ROOT / name).parent
    for target in re.findall(r"\]\((?!https?:)([^)]+)\)", TEXTS[name]):
        path, _, anchor = target.partition("#")
        file = folder / path if path else ROOT / name
        assert file.exists(), target
        if anchor:
            assert anchor in anchors(file.read_text(encoding="utf-8")), target


def test_every_readme_is_linked_from_another() -> None:
    linked = {
        ((ROOT / name).parent / target.partition("#")[0]).resolve()
        for name, text in TEXTS.items()
        for target in re.findall(r"\]\((?!https?:)([^)#]+)", text)
    }
    assert {ROOT / name for name in READMES} - linked <= {ROOT / "README.md"}


@pytest.mark.parametrize("name", READMES)
def test_paths_of_tests_exist(name: str) -> None:
    for command in re.findall(r"pytest [^`\n|]*", TEXTS[name]):
        for path in re.findall(r"tests/[\w./]+", command):
            assert (ROOT / path).exists(), command


def test_every_model_is_listed_and_every_listed_model_exists() -> None:
    section = MAIN.split("## Models")[1].split("##")[0]
    backbones: list[str] = []
    listed: set[str] = set()
    for line in section.splitlines():
        names = re.findall(r"`([^`]+)`", line)
        if "|" not in line or not names or "--backbone" in line:
            continue
        if "the same, but" in line:
            prefix, missing = names
            listed |= {prefix + backbone for backbone in backbones if backbone != missing}
        elif "` + `" in line:
            prefixes = [name for name in names if name.endswith("_")]
            suffixes = [name for name in names if not name.endswith("_")]
            backbones = suffixes if prefixes == ["fasterrcnn_"] else backbones
            listed |= {prefix + backbone for prefix in prefixes for backbone in suffixes}
        else:
            listed |= set(names)
    assert listed == set(MODELS)


def test_main_readme_is_short() -> None:
    assert len(MAIN.encode()) <= MAX_BYTES


def test_the_two_set_up_commands_are_marked_for_continuous_integration() -> None:
    for marker in ("main-job", "tests"):
        assert re.search(rf"<!-- {marker} -->\n```bash\n.+\n```", MAIN), marker
    assert "<!-- $1 -->" in (ROOT / ".ci" / "run").read_text(encoding="utf-8")
