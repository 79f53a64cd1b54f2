"""A run whose data was moved: resumed and evaluated by the file names of its split, and training images are named."""

from __future__ import annotations

import json
import re
import shlex
import shutil
from pathlib import Path
from typing import Any

import cv2
import pytest

from detseg.annotations import read, split
from detseg.checkpoints import load_checkpoint
from detseg.cli import main
from detseg.options import DataConfig
from detseg.training.moved_data import new_places
from tests.annotations.one_image import put

pytestmark = pytest.mark.usefixtures("no_images")

CPU = ("--device", "cpu", "--workers", "0")


@pytest.fixture(scope="module")
def data(colour_folders: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return Path(shutil.copytree(colour_folders, tmp_path_factory.mktemp("first") / "data"))


@pytest.fixture(scope="module")
def base(data: Path, classify: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of two epochs."""
    return Path(classify(tmp_path_factory.mktemp("base") / "run", data=data))


@pytest.fixture
def run(base: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(base, tmp_path / "run"))


@pytest.fixture
def new(data: Path, tmp_path: Path) -> Path:
    """The data in another place, under another name."""
    return Path(shutil.copytree(data, tmp_path / "elsewhere/renamed"))


@pytest.fixture
def gone(data: Path, new: Path) -> Any:
    """Take the data away for the time of a test."""
    data.rename(data.with_name("away"))
    yield data
    data.with_name("away").rename(data)


def files(run: Path, split: str) -> list[str]:
    return [image["file"] for image in json.loads((run / "split.json").read_text())["splits"][split]]


def evaluated(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[dict[str, Any], str]:
    """The JSON of ``evaluate``, and what it prints to stderr."""
    capsys.readouterr()
    assert main(["evaluate", *map(str, arguments), "--json", *CPU]) == 0
    printed = capsys.readouterr()
    return json.loads(printed.out), printed.err


@pytest.mark.parametrize("form", ["--data", "positional"])
def test_a_resumed_run_continues_exactly(
    form: str, run: Path, new: Path, gone: Path, base: Path, tmp_path: Path
) -> None:
    where = ["--data", str(new)] if form == "--data" else [str(new)]
    assert main(["train", "--resume", str(run), *where, "--epochs", "3", *CPU]) == 0
    assert f'data = "{new}"' in (run / "config.toml").read_text()
    gone.with_name("away").rename(gone)  # control: the same run with its data where it was
    try:
        stayed = Path(shutil.copytree(base, tmp_path / "stayed"))
        assert main(["train", "--resume", str(stayed), "--epochs", "3", *CPU]) == 0
    finally:
        gone.rename(gone.with_name("away"))
    for name in ("last.safetensors", "best.safetensors", "metrics.json", "split.json"):
        assert (run / name).read_bytes() == (stayed / name).read_bytes(), name
    assert load_checkpoint(run / "last.safetensors").position.epoch == 3


@pytest.mark.parametrize("added", ["red/z.png", "red/a.png"])
def test_images_were_added(added: str, run: Path, new: Path, gone: Path, capsys: Any) -> None:
    """The run goes on with the images of its split. If their ids have changed too, it is refused."""
    shutil.copy(new / "red/film0_red_0.png", new / added)
    before = files(run, "val")
    assert set(before) != {str(name) for name in split(read(new), val=0.2)["val"].media}, "control: of a new split"
    code = main(["train", "--resume", str(run), "--data", str(new), "--epochs", "3", *CPU])
    printed = capsys.readouterr()
    if added == "red/z.png":
        assert code == 0
        assert "1 x image that is not in split.json left out: red/z.png" in printed.out
    else:
        assert code == 1
        assert "was trained on other data" in printed.err
    assert files(run, "val") == before


def test_other_data_is_refused(run: Path, new: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    image = new / files(run, "train")[0]
    config = (run / "config.toml").read_bytes()
    cv2.imwrite(str(image), cv2.imread(str(image))[:30])
    command = ["train", "--resume", str(run), "--data", str(new), "--epochs", "3", *CPU]
    assert main(command) == 1
    message = capsys.readouterr().err
    assert (
        f"{run} was trained on other data: train: the file of 1 image: {image.name}; train: the name or the" in message
    )
    assert "Nothing was written. Pass the data that it was trained on with --data, or start a new run" in message
    image.unlink()
    assert main(command) == 1
    message = capsys.readouterr().err
    assert f"1 of its images are not in {new}" in message
    assert f"{files(run, 'train')[0]} (image id" in message
    assert (run / "config.toml").read_bytes() == config
    weights = re.search(r"--weights (\S+)", message)
    assert weights is not None  # the remedy
    options = ["--model", "mobilenet_v3_small", "--epochs", "1", "--image-size", "64", "--output", str(tmp_path / "b")]
    assert main(["train", str(new), "--weights", weights[1], *options, *CPU]) == 0


def test_the_data_is_gone(run: Path, new: Path, gone: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The message names the commands for data that was moved, and both work."""
    messages = []
    for command in (["train", "--resume", str(run), "--epochs", "3"], ["evaluate", str(run)]):
        assert main([*command, *CPU]) == 1
        messages.append(capsys.readouterr().err)
        assert (
            f"{run} was trained on {gone}, which does not exist; if it was moved, name its new place: " in messages[-1]
        )
    for message in messages:
        commands = re.findall(r"detseg ((?:train|evaluate) .*? NEW(?: --split val)?)(?= or |$)", message.strip())
        assert len(commands) == 2, message
        for command in commands:
            assert main([str(new) if word == "NEW" else word for word in shlex.split(command)] + list(CPU)) == 0
    assert main(["train", "--resume", str(run), "--data", str(gone), "--epochs", "4", *CPU]) == 1
    assert "no such file or folder" in capsys.readouterr().err  # a wrong new place


@pytest.mark.parametrize("options", [["--split", "val"], []])
def test_the_saved_split_of_moved_data(
    options: list[str], run: Path, new: Path, data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before, quiet = evaluated(capsys, run, "--split", "val")
    assert not quiet
    moved, said = evaluated(capsys, run, new, *options)
    assert moved == before
    assert f"val split of {run} by file names: {len(files(run, 'val'))} images of {new}" in said
    assert "warning" not in said
    everything, _ = evaluated(capsys, run, new, "--split", "all")
    assert everything["images"] == 18 != before["images"], "control: the old rule took all images"
    tested, said = evaluated(capsys, run, new, "--split", "train")
    assert tested["training_images"] == tested["images"] == len(files(run, "train"))


def test_training_images_are_named(run: Path, new: Path, data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    count = len(files(run, "train"))
    for arguments in ([run, new], [run, data], [run]):
        values, said = evaluated(capsys, *arguments, "--split", "all")
        assert values["training_images"] == count
        assert f"warning: {count} of these 18 images have the file names of training images of {run}" in said
        assert "--split val evaluates the validation images only" in said
    assert json.loads((run / "evaluate-all/metrics.json").read_text())["training_images"] == count
    capsys.readouterr()
    assert main(["evaluate", str(run), str(new), "--split", "all", *CPU]) == 0
    printed = capsys.readouterr()
    assert "training images" in printed.err  # also without --json
    assert "all images: " in printed.out


def test_training_images_in_another_folder(run: Path, new: Path, tmp_path: Path, capsys: Any) -> None:
    """Some of the training images in folders of another root, with images that the run does not know."""
    names = [next(name for name in files(run, "train") if name.startswith(colour)) for colour in ("blue", "green")]
    for name in names:
        colour, _, last = name.partition("/")
        target = tmp_path / "mixed/test" / colour / "more" / last
        target.parent.mkdir(parents=True)
        shutil.copy(new / name, target)
        shutil.copy(new / name, target.with_name("new.png"))
    values, said = evaluated(capsys, run, tmp_path / "mixed")
    assert (values["images"], values["training_images"]) == (4, 2)
    assert "warning: 2 of these 4 images have the file names of training images" in said
    assert "evaluate images that are in no split" in said
    for path in (tmp_path / "mixed").rglob("film*"):
        path.unlink()
    values, said = evaluated(capsys, run, tmp_path / "mixed")  # control
    assert "training_images" not in values
    assert "training images" not in said
    assert "has no val split: all 2 images are evaluated" in said


def test_part_of_the_saved_split(run: Path, new: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first, *rest = files(run, "val")
    (new / first).unlink()
    values, said = evaluated(capsys, run, new)
    assert values["images"] == len(rest)
    assert f"; 1 image of it are missing: {first} (image id" in said


def test_other_images_with_the_same_names(run: Path, new: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for path in new.rglob("*.png"):
        cv2.imwrite(str(path), cv2.imread(str(path))[:33])
    values, said = evaluated(capsys, run, new)
    assert values["images"] == len(files(run, "val"))
    assert f"has the file names of the data that {run} was trained on, but differs from it: train: the file of " in said
    assert "evaluate all of them with --split all" in said


def test_a_checkpoint_without_its_run(run: Path, new: Path, tmp_path: Path, capsys: Any) -> None:
    shutil.copy(run / "best.safetensors", tmp_path / "alone.safetensors")
    (tmp_path / "b").mkdir()
    shutil.move(tmp_path / "alone.safetensors", tmp_path / "b")
    values, said = evaluated(capsys, tmp_path / "b/alone.safetensors", new, "--output", tmp_path / "out")
    assert values["images"] == 18
    assert "whether it was trained on these images is not known" in said


def test_other_places_move_with_the_data(tmp_path: Path) -> None:
    saved = {"data": "/gone/set/train.json", "val_annotations": "/gone/set/val.json", "images": "/gone/photos"}
    for name in ("here/set/train.json", "here/set/val.json", "here/photos/a.png"):
        put(tmp_path / name)
    here = tmp_path / "here"
    data = DataConfig(data=str(here / "set/train.json"))
    expected = {"data": data.data, "images": str(here / "photos"), "val_annotations": str(here / "set/val.json")}
    assert new_places(saved, data) == expected
    assert new_places(saved, DataConfig(data=data.data, images=str(tmp_path)))["images"] == str(tmp_path)
    shutil.rmtree(here / "photos")
    assert "images" not in new_places(saved, data)
    assert new_places(saved, DataConfig(images=str(tmp_path))) == {"images": str(tmp_path)}


@pytest.mark.slow
def test_annotations_with_separate_images(parts: Path, train: Any, tmp_path: Path, capsys: Any) -> None:
    """The image folder and the validation file move with the annotations."""
    for folder in ("first", "second"):
        shutil.copytree(parts, tmp_path / folder / "set")
    first, second = tmp_path / "first/set", tmp_path / "second/set"
    options = ("--val-annotations", str(first / "instances_val.json"), "--images", str(first))
    run = train(first / "instances_train.json", tmp_path / "run", *options, "--classes", "bolt")
    before, _ = evaluated(capsys, run)
    shutil.rmtree(first)
    moved, said = evaluated(capsys, run, second / "instances_train.json")
    assert moved == before
    assert "warning" not in said
    assert main(["train", "--resume", str(run), "--data", str(second / "instances_train.json"), "--epochs", "2"]) == 0
    saved = (run / "config.toml").read_text()
    assert str(second / "instances_val.json") in saved
    assert str(first) not in saved.replace(str(second), "")
