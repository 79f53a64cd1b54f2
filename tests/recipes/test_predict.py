"""``predict``: results that are written as they come, files that cannot be used, and output that is not read again."""

from __future__ import annotations

import json
import os
import shutil
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
import pytest

from detseg.annotations import read
from detseg.annotations.listing import list_folder
from detseg.classes import ClassMap
from detseg.cli import main
from detseg.errors import DataError
from detseg.images import EncodedImage
from detseg.inference import earlier_outputs, image_outputs
from detseg.inference.output_paths import drawing_path
from detseg.inference.prediction_files import PredictionLines, read_lines
from detseg.inference.predictor import LoadedImage
from detseg.inference.results import to_results
from detseg.options import PredictConfig
from detseg.preprocess import Geometry
from detseg.recipes import predict as recipe
from detseg.runtime.files import WriteError, write_json
from detseg.runtime.reporter import silent
from detseg.structures import Prediction
from tests.annotations.one_image import ONE_IMAGE, PNG, put

MASK = cv2.imencode(".png", np.pad(np.ones((5, 6), np.uint8), ((2, 13), (3, 21))))[1].tobytes()
CLASSES = ClassMap.from_names(["bolt", "nut"])


def prediction(count: int = 2) -> Prediction:
    boxes = np.tile(np.array([[1, 2, 11.3, 12]], np.float32), (count, 1))
    return Prediction((20, 30), boxes, np.ones(count, np.int64), np.linspace(0.9, 0.1, count).astype(np.float32))


class Model:
    """What ``predict`` needs of a predictor: it decodes the image, and finds the same in all."""

    class_map, keypoints, label_fields, then, device = CLASSES, None, (), None, "cpu"
    task = "detect"
    preprocessing = SimpleNamespace(value_range=None, lines=list)

    def __init__(self, run: object = None, device: object = None, **options: object) -> None:
        pass

    def load(self, path: Path) -> LoadedImage:
        return LoadedImage(path, Geometry((20, 30), (20, 30)))  # type: ignore[arg-type]

    def run(self, images: list[LoadedImage]) -> list[Prediction]:
        return [self(image.pixels) for image in images]  # type: ignore[arg-type]

    def __call__(self, path: Path) -> Prediction:
        EncodedImage(path, name=path.name).decode()
        return prediction()


@pytest.fixture(autouse=True)
def model(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recipe, "Predictor", Model)


@pytest.fixture
def images(tmp_path: Path) -> Path:
    for name in ("a.png", "b.png", "deep/c.png"):
        put(tmp_path / "data" / name)
    return tmp_path / "data"


def predict(*images: Path, output: Path, **options: Any) -> recipe.PredictResult:
    config = PredictConfig(run="run", images=[str(image) for image in images], output=str(output), **options)
    return recipe.predict(config, reporter=silent())


def names(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def contents(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


def test_predictions_are_the_bytes_of_all_results_at_once(images: Path, tmp_path: Path) -> None:
    put(images / "bad.jpg", b"no image")
    result = predict(images, output=tmp_path / "out")
    expected = [
        {"image_id": number, "file_name": name, **values}
        for number, name in enumerate(["a.png", "b.png", "bad.jpg", "deep/c.png"], start=1)
        if name != "bad.jpg"
        for values in to_results(prediction(), CLASSES)
    ]
    write_json(tmp_path / "all.json", expected)
    assert (tmp_path / "out/predictions.json").read_bytes() == (tmp_path / "all.json").read_bytes()
    assert result.results == expected
    assert [message.split(":")[0] for message in result.failed] == ["bad.jpg"]
    lines = [json.loads(line) for line in read_lines(tmp_path / "out")]
    assert [(line["image_id"], line["file_name"]) for line in lines] == [
        (1, "a.png"),
        (2, "b.png"),
        (3, "bad.jpg"),
        (4, "deep/c.png"),
    ]
    assert [len(line.get("results", ())) for line in lines] == [2, 2, 0, 2]
    written = contents(tmp_path / "out/images.json")
    assert [image["file_name"] for image in written["images"]] == [line["file_name"] for line in lines]
    assert [category["name"] for category in written["categories"]] == ["bolt", "nut"]
    assert written["failed"] == result.failed


def test_no_results(images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Model, "__call__", lambda self, path: prediction(0))
    assert predict(images, output=tmp_path / "out").results == []
    write_json(tmp_path / "all.json", [])
    assert (tmp_path / "out/predictions.json").read_bytes() == (tmp_path / "all.json").read_bytes()


def stopped_at(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """Let the model be interrupted at an image."""

    def call(self: Model, path: Path) -> Prediction:
        if path.name == name:
            raise KeyboardInterrupt
        return prediction()

    monkeypatch.setattr(Model, "__call__", call)


def test_an_interrupted_predict_leaves_whole_lines_and_starts_again(
    images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    command = ["predict", "run", str(images), "--output", str(out)]
    with monkeypatch.context() as patch:
        stopped_at(patch, "c.png")
        assert main(command) == 130
    text = (out / "predictions.jsonl").read_text()
    assert [json.loads(line)["file_name"] for line in text.splitlines()] == ["a.png", "b.png"]
    assert text.endswith("\n")
    assert not (out / "predictions.json").exists()
    with (out / "predictions.jsonl").open("a") as file:
        file.write('{"image_id": 3, "file_na')  # the machine stopped while it wrote
    capsys.readouterr()
    assert main(command) == 0
    assert "was interrupted after 2 images; this one starts again" in capsys.readouterr().out
    assert len(contents(out / "predictions.json")) == 6
    assert main(command) == 0  # control
    assert "was interrupted" not in capsys.readouterr().out


def test_a_full_disk_stops_predict_and_leaves_whole_lines(tmp_path: Path) -> None:
    class Full:
        """A file on a disk that is full after 150 bytes."""

        def __init__(self, file: Any) -> None:
            self.file, self.tell, self.truncate, self.close = file, file.tell, file.truncate, file.close

        def write(self, data: bytes) -> int:
            left = 150 - self.file.tell()
            if left <= 0:
                raise OSError(28, "No space left on device")
            return int(self.file.write(data[:left]))

    for drop in (True, False):
        with PredictionLines(tmp_path) as lines:
            file = lines._file
            lines._file = Full(file)  # type: ignore[assignment]
            if not drop:  # control: without the cut, part of a line is left
                lines._file.truncate = lambda size: size  # type: ignore[assignment,method-assign]
            assert lines.results(1, "a.png", [{"score": 1.0}])
            with pytest.raises(WriteError, match=r"predictions\.jsonl: no space left"):
                lines.results(2, "b.png", [{"score": 1.0, "category": "x" * 100}])
            file.close()
        assert (tmp_path / "predictions.jsonl").read_bytes().endswith(b"\n") == drop


def test_numbers_that_are_not_finite_cost_one_image(
    images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def call(self: Model, path: Path) -> Prediction:
        found = prediction()
        if path.name == "a.png":
            found.boxes[0, 0] = np.nan
        return found

    monkeypatch.setattr(Model, "__call__", call)
    result = predict(images, output=tmp_path / "out", draw=False)
    assert result.failed == ["a.png: the results have numbers that are not finite"]
    assert len(result.results) == 4


def test_memory_does_not_grow_with_the_results(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = prediction(50)
    monkeypatch.setattr(Model, "__call__", lambda self, path: found)

    def old(config: Any, *, reporter: Any) -> None:
        """The rule before: all results are collected."""
        results = [
            {"image_id": number, "file_name": path.name, **result}
            for number, path in enumerate(sorted(Path(config.images[0]).iterdir()))
            for result in to_results(found, CLASSES)
        ]
        write_json(Path(config.output) / "predictions.json", results)

    def bytes_per_image(function: Callable[..., Any]) -> float:
        peaks = []
        for count in (10, 40):
            folder = tmp_path / str(count)
            folder.mkdir(exist_ok=True)
            for number in range(count):
                (folder / f"{number}.png").touch()
            config = PredictConfig(run="run", images=[str(folder)], output=str(tmp_path / "out"), draw=False)
            tracemalloc.start()
            function(config, reporter=silent())
            peaks.append(tracemalloc.get_traced_memory()[1])
            tracemalloc.stop()
        return (peaks[1] - peaks[0]) / 30

    bytes_per_image(recipe.predict)  # imports
    assert bytes_per_image(recipe.predict) < 2500  # a path and a name
    assert bytes_per_image(old) > 20_000


LONG = "n" * 240 + ".png"
NOT_UTF8 = os.fsdecode(b"caf\xe9.png")
TERMINAL = "a\nb\x1b[2J.png"


@pytest.fixture
def odd(tmp_path: Path) -> Path:
    folder = tmp_path / "odd"
    for name in (LONG, LONG.replace("n.png", "m.png"), NOT_UTF8, TERMINAL, "good.png"):
        try:
            put(folder / name)
        except OSError as error:
            pytest.skip(f"this file system does not allow such names: {error}")
    return folder


def test_odd_names(odd: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out"
    assert main(["predict", "run", str(odd), "--output", str(out)]) == 0
    drawn = [path.name for path in (out / "images").iterdir()]
    assert len(drawn) == len({*drawn}) == 5
    assert all(len(os.fsencode(name)) <= 255 and name.endswith(".png.jpg") for name in drawn)
    text = (out / "predictions.json").read_text(encoding="utf-8")
    assert {entry["file_name"] for entry in json.loads(text)} == {
        *(LONG, LONG.replace("n.png", "m.png"), "caf\\xe9.png", TERMINAL, "good.png"),
    }
    with pytest.raises(UnicodeEncodeError):  # control: the name as it is cannot be written
        json.dumps(NOT_UTF8, ensure_ascii=False).encode()
    assert (out / "images.json").read_text(encoding="utf-8").count("caf\\\\xe9.png") == 1
    assert main(["predict", "run", str(odd), "--output", str(out), "--no-draw"]) == 0
    assert "removed 5 drawings of an earlier predict" in capsys.readouterr().out
    assert not (out / "images").exists()


def test_messages_about_odd_names_are_one_line_of_plain_characters(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "odd"
    put(folder / "good.png")
    for name in (NOT_UTF8, TERMINAL):
        try:
            put(folder / name, b"no image")
        except OSError:
            pytest.skip("this file system does not allow such names")
    assert main(["predict", "run", str(folder), "--output", str(tmp_path / "out")]) == 1
    lines = capsys.readouterr().out.splitlines()
    messages = [line for line in lines if line.startswith("could not be read: ")]
    assert len(messages) == 2
    assert all(line.isprintable() for line in lines)
    assert "a\\nb\\x1b[2J.png" in messages[0]
    assert "caf\\xe9.png" in messages[1]
    assert [len(contents(tmp_path / "out" / name)) for name in ("predictions.json",)] == [2]


def test_exit_codes(images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["predict", "run", str(images), "--output", str(tmp_path / "out")]
    assert main(command) == 0
    for number in range(8):
        put(images / f"bad{number}.jpg", b"no image")
    capsys.readouterr()
    assert main(command) == 1
    printed = capsys.readouterr().out
    assert "3 images, 6 results, 3 of them with a score >= 0.5; 8 of 11 images could not be read" in printed
    assert printed.count("could not be read: ") == 5
    assert f"and 3 more, which {tmp_path / 'out/images.json'} lists" in printed
    assert len(contents(tmp_path / "out/images.json")["failed"]) == 8
    for name in ("a.png", "b.png", "deep/c.png"):
        (images / name).unlink()
    assert main(command) == 1
    assert "none of 8 images could be read: bad0.jpg" in capsys.readouterr().err


def test_a_drawing_that_cannot_be_written_costs_only_itself(
    images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write = image_outputs.write_image

    def refuse(path: Path, image: Any, code: int) -> None:
        if path.name == "b.png.jpg":
            raise OSError(code, os.strerror(code), str(path))
        write(path, image)

    out = tmp_path / "out"
    monkeypatch.setattr(image_outputs, "write_image", lambda path, image: refuse(path, image, 36))
    assert main(["predict", "run", str(images), "--output", str(out)]) == 1
    assert "note: 1 x drawing could not be written: " in capsys.readouterr().out
    assert names(out / "images") == ["a.png.jpg", "deep/c.png.jpg"]
    assert len(contents(out / "predictions.json")) == 6


def test_a_full_disk_stops_the_drawings(
    images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write, out = image_outputs.write_image, tmp_path / "out"

    def refuse(path: Path, image: Any) -> None:
        if path.name == "b.png.jpg":
            raise WriteError(28, f"{path}: no space left on the disk")
        write(path, image)

    monkeypatch.setattr(image_outputs, "write_image", refuse)
    assert main(["predict", "run", str(images), "--output", str(out)]) == 1
    assert "b.png.jpg: no space left on the disk; no more images are drawn" in capsys.readouterr().out
    assert names(out / "images") == ["a.png.jpg"]
    assert len(contents(out / "predictions.json")) == 6  # of all three images


def test_equal_names_in_different_folders(images: Path, tmp_path: Path) -> None:
    other = put(tmp_path / "other/data/a.png").parent
    result = predict(images, other, images / "b.png", output=tmp_path / "out")
    expected = ["data/a.png", "data/b.png", "data/deep/c.png", "other/data/a.png"]
    assert [json.loads(line)["file_name"] for line in read_lines(tmp_path / "out")] == expected
    assert names(tmp_path / "out/images") == [f"{name}.jpg" for name in expected]
    assert len(result.results) == 8


def test_its_own_output_is_not_read(images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Inside the input, beside it, and of other runs."""
    first = predict(images, output=images / "out").results
    assert names(images / "out/images") == ["a.png.jpg", "b.png.jpg", "deep/c.png.jpg"]
    files = sorted(path.name for path in images.rglob("*") if path.suffix in (".png", ".jpg"))
    assert len(files) == 6, "control: without the rule there are six images"
    for output in (images / "out", images / "other", images, tmp_path / "outside", images / "out"):
        assert main(["predict", "run", str(images), "--output", str(output)]) == 0
        assert "folder with output of this program, which is left out: " in capsys.readouterr().out
        assert contents(output / "predictions.json") == first
    assert len(predict(images / "out/images", output=tmp_path / "outside").results) == 6  # read if it is asked for
    shutil.rmtree(images / "deep")
    (images / "a.png").unlink()
    (images / "b.png").unlink()
    with pytest.raises(DataError, match=r"no images found; .*output of this program is not read \(\., images, "):
        predict(images, output=images / "out")


def test_output_of_version_0_1_is_recognized(images: Path, tmp_path: Path) -> None:
    """It has no predictions.jsonl, and its drawings may be of several commands."""
    predict(images, output=images / "out")
    (images / "out/predictions.jsonl").unlink()
    put(images / "out/images/earlier.jpg.jpg")
    assert [image["file_name"] for image in contents(images / "out/images.json")["images"]] == [
        *("a.png", "b.png", "deep/c.png")
    ]
    assert len(predict(images, output=images / "out").results) == 6
    assert names(images / "out/images") == ["a.png.jpg", "b.png.jpg", "deep/c.png.jpg", "earlier.jpg.jpg"]


def test_drawings_in_the_output_folder_are_left_out_by_their_names(images: Path, tmp_path: Path) -> None:
    put(images / "out/images/x.png.jpg")  # of a predict that was killed before it wrote anything else
    put(images / "out/images/photo.jpg")  # of the user
    names_found = {r["file_name"] for r in predict(images, output=images / "out").results}
    assert names_found == {"a.png", "b.png", "deep/c.png", "out/images/photo.jpg"}
    put(images / "elsewhere/images/x.png.jpg")  # control: nothing says that predict wrote it
    assert len(predict(images, output=images / "out").results) == 10


def test_old_drawings_are_removed_and_no_other_files(
    images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    predict(images, output=out)
    put(out / "images/mine.jpg")
    put(out / "images/a.png.txt", "mine")
    put(out / "notes.txt", "mine")
    assert main(["predict", "run", str(images / "a.png"), "--output", str(out)]) == 0
    assert f"removed 3 drawings of an earlier predict from {out / 'images'}" in capsys.readouterr().out
    expected = "images.json images/a.png.jpg images/a.png.txt images/mine.jpg notes.txt predictions.json"
    assert names(out) == [*expected.split(), "predictions.jsonl"]


def test_a_changed_list_removes_nothing_outside(images: Path, tmp_path: Path) -> None:
    out, outside = tmp_path / "out", put(tmp_path / "secret.png.jpg")
    predict(images, output=out)
    evil = ["../../secret.png", str(tmp_path / "secret.png"), "a.png"]
    lines = [json.dumps({"image_id": 1, "file_name": name, "results": []}) for name in evil]
    (out / "predictions.jsonl").write_text("\n".join(lines) + "\n")
    assert earlier_outputs.remove_earlier(out) == [f"removed 1 drawing of an earlier predict from {out / 'images'}"]
    assert outside.exists()
    assert drawing_path(out, evil[0]).resolve() == outside  # control: the name leads there


def test_an_output_folder_of_others_is_refused(images: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    put(run / "config.toml", "")
    put(run / "metrics.jsonl", "")
    put(run / "predictions.json", "[]")
    with pytest.raises(DataError, match=r"--output .*run is the folder of a run, .*give another folder"):
        predict(images, output=run)
    put(images / "images.json", '{"images": [], "annotations": [], "categories": []}')
    with pytest.raises(DataError, match=r"images\.json was not written by predict and would be replaced"):
        predict(images, output=images)
    assert (run / "predictions.json").read_text() == "[]"
    assert len(predict(images, output=run / "out").results) == 6  # the remedy


LISTED = '{"images": [], "categories": [], "failed": []}'
WRITTEN: dict[str, dict[str, str | bytes]] = {
    "a run": {"config.toml": "", "metrics.jsonl": "", "predictions.jpg": PNG, "curves.png": PNG},
    "a run that was stopped": {"config.toml": "", "split.json": "{}", "confusion.png": PNG},
    "inspect": {"summary.json": "{}", "sheet.jpg": PNG},
    "predict": {"predictions.json": "[]", "images.json": LISTED, "images/a.png.jpg": PNG},
    "an interrupted predict": {"predictions.jsonl": "", "images/deep/a.png.jpg": PNG},
}
"""Output of each command, with its images."""


@pytest.mark.parametrize("command", WRITTEN)
def test_output_of_every_command_is_left_out(command: str, tmp_path: Path) -> None:
    files = WRITTEN[command]
    root = tmp_path / "data"
    put(root / "a/1.png")
    put(root / "b/2.png")
    for file, content in files.items():
        put(root / "more" / file, content)
    put(root / "more/3.png")
    listing = list_folder(root)
    assert [file for file in listing.files if file.endswith((".png", ".jpg"))] == ["a/1.png", "b/2.png", "more/3.png"]
    assert listing.written[0].startswith("more")
    table = read(root)  # class folders: the image of the user is kept
    assert [str(media) for media in table.media] == ["a/1.png", "b/2.png", "more/3.png"]
    assert any(line.startswith(f"{len(listing.written)} x folder with output") for line in table.notes.lines())
    for file in files:  # control: an image alone does not tell who wrote it
        if not file.endswith((".png", ".jpg")):
            (root / "more" / file).unlink()
    assert len(list_folder(root).files) > 3
    assert not list_folder(root).written


def test_annotations_with_a_name_of_predict_are_read(tmp_path: Path) -> None:
    put(tmp_path / "data/a.png")
    ONE_IMAGE["coco"](tmp_path / "data", "a.png", "a.png")
    (tmp_path / "data/result.json").rename(tmp_path / "data/images.json")
    put(tmp_path / "data/predictions.json", "[]")
    assert len(read(tmp_path / "data")) == 1


def masks(root: Path, stated: str, stored: str) -> None:
    put(root / "masks" / f"{Path(stored).stem}.png", MASK)


@pytest.mark.parametrize("format", [*ONE_IMAGE, "masks"])
def test_every_format_reads_the_same_with_output_in_its_folder(format: str, tmp_path: Path) -> None:
    root = tmp_path / "data"
    put(root / "images/a.png")
    {**ONE_IMAGE, "masks": masks}[format](root, "a.png", "images/a.png")
    before = read(root)
    for folder, files in zip(("runs/a", "runs/b", ".", "out", "sub/out"), WRITTEN.values(), strict=True):
        for file, content in files.items():
            put(root / folder / file, content)
    put(root / "runs/a/split.json", "{}")
    put(root / "runs/a/evaluate-val/predictions.json", "[]")
    put(root / "runs/a/evaluate-val/metrics.json", "{}")
    table = read(root)
    assert [str(media) for media in table.media] == [str(media) for media in before.media]
    assert table.class_map.names == before.class_map.names
    new = [line for line in table.notes.lines() if line not in before.notes.lines()]
    assert [line.partition(": ")[0] for line in new][-1].endswith(
        "folder with output of this program, which is left out"
    )
