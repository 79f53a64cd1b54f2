"""12-bit images in 16-bit files: one value range for training, evaluation, prediction and drawings of a run."""

from __future__ import annotations

import json
import tomllib
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch

from detseg.annotations import AnnotationTable, read
from detseg.annotations.builder import TableBuilder
from detseg.checkpoints import load
from detseg.classes import ClassMap
from detseg.cli import main
from detseg.datasets import Dataset, LabelledImages
from detseg.errors import DataError
from detseg.images import decode_image
from detseg.inference.predictor import Predictor
from detseg.models import OwnClassifier
from detseg.models.create import create_model
from detseg.models.description import ModelDescription
from detseg.options import TrainConfig
from detseg.preprocess import Preprocessing
from detseg.runtime.machine import MachineFacts
from detseg.training.make_plan import make_plan
from detseg.training.value_range_choice import training_value_range


def write_discs(folder: Path, count: int, *, top: int = 4095, dtype: type = np.uint16, suffix: str = ".tif") -> Path:
    """Bright discs on a darker background of noise, values up to ``top``, as a COCO data set."""
    (folder / "images").mkdir(parents=True)
    rng = np.random.default_rng(0)
    images, annotations = [], []
    for row in range(count):
        values = rng.uniform(0.1, 0.25, (96, 96))
        for _ in range(2):
            radius = int(rng.integers(10, 18))
            x, y = rng.integers(radius, 96 - radius, 2).tolist()
            cv2.circle(values, (x, y), radius, 0.85, -1)
            box = [x - radius, y - radius, 2 * radius + 1, 2 * radius + 1]
            annotations.append(
                {"id": len(annotations) + 1, "image_id": row + 1, "category_id": 1, "bbox": box, "iscrowd": 0}
                | {"area": box[2] * box[3]}
            )
        values.flat[:2] = 0, 1
        assert cv2.imwrite(str(folder / "images" / f"{row}{suffix}"), (values * top).astype(dtype))
        images.append({"id": row + 1, "file_name": f"{row}{suffix}", "height": 96, "width": 96})
    content = {"images": images, "annotations": annotations, "categories": [{"id": 1, "name": "disc"}]}
    (folder / "annotations.json").write_text(json.dumps(content))
    return folder


DETECT = ("--model", "fasterrcnn_mobilenet_v3_large_fpn_slim", "--task", "detect", "--val", "0.25")


@pytest.fixture(scope="module")
def discs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_discs(tmp_path_factory.mktemp("discs") / "data", 8)


@pytest.fixture(scope="module")
def run(discs: Path, tmp_path_factory: pytest.TempPathFactory, train: Any, no_images: None) -> Path:
    return train(discs, tmp_path_factory.mktemp("run") / "run", *DETECT)


@pytest.fixture
def no_warnings() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


def test_a_run_keeps_the_range_and_every_door_uses_it(
    run: Path, discs: Path, tmp_path: Path, capsys: Any, no_warnings: None
) -> None:
    assert tomllib.loads((run / "config.toml").read_text())["model"]["value_range"] == [0, 4095]
    model = load(run)
    assert model.preprocessing.value_range == (0, 4095)
    path = discs / "images" / "0.tif"
    expected = (cv2.imread(str(path), cv2.IMREAD_UNCHANGED) >> 4)[..., None]
    sample, _ = Dataset(read(discs), model.preprocessing, task="detect")[0]
    network = Predictor(model)
    np.testing.assert_array_equal(sample.permute(1, 2, 0).numpy(), np.broadcast_to(expected, (96, 96, 3)))
    np.testing.assert_array_equal(network.prepare(path)[0], sample.permute(1, 2, 0).numpy())
    np.testing.assert_array_equal(network.prepare(path.read_bytes())[0], network.prepare(path)[0])
    values = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
    for pixels in (values, np.repeat(values[..., None], 3, axis=2), values.astype(np.int32)):
        np.testing.assert_array_equal(network.prepare(pixels)[0], network.prepare(path)[0])
    assert main(["evaluate", str(run), "--output", str(tmp_path / "metrics")]) == 0
    assert main(["predict", str(run), str(path), "--output", str(tmp_path / "out")]) == 0
    line = "pixel values 0..4095 of images with more than 8 bits are scaled to 8 bits (--value-range)"
    assert capsys.readouterr().out.count(line) == 2, "evaluate and predict"
    assert decode_image(tmp_path / "out" / "images" / "0.tif.jpg").max() > 200
    assert decode_image(path).max() <= 16, "control: without the range the drawing would be black"


@pytest.mark.slow
def test_the_option_overrides_the_choice(discs: Path, tmp_path: Path, train: Any, no_images: None) -> None:
    train(discs, tmp_path / "a", *DETECT, "--value-range", "[0,5000]")
    assert load(tmp_path / "a").preprocessing.value_range == (0, 5000)


def test_the_choice_has_a_reason(discs: Path) -> None:
    table = read(discs)
    value_range, reason = training_value_range(table)
    assert value_range == [0, 4095]
    assert reason.startswith("values 0..4095 of 16-bit images are scaled to 8 bits: range of the training images")
    with pytest.raises(DataError, match="the lowest first"):
        training_value_range(table, [5000, 0])


def test_8_bit_data_has_no_range(parts: Path) -> None:
    table = read(parts)
    assert training_value_range(table) == (None, "")
    with pytest.raises(DataError, match="it has no effect, because no training image has more than 8 bits"):
        training_value_range(table, [0, 255])
    with_range, without = (
        Dataset(table, Preprocessing(48, 0, value_range=value), task="detect")[0][0] for value in ((3, 9), None)
    )
    assert torch.equal(with_range, without)


def test_missing_files_are_ignored_here(discs: Path) -> None:
    builder = TableBuilder(ClassMap.from_names(["a"]), discs / "images", source="x")
    for name in ("missing.tif", "0.tif"):
        builder.add_image(name, (96, 96))
    table = builder.build()
    assert training_value_range(table.subset([0])) == (None, "")
    assert training_value_range(table.subset([0]), [0, 9]) == ([0, 9], "option"), "they may have more than 8 bits"
    assert training_value_range(table)[0] == [0, 4095]


def test_a_description_without_the_field_has_none() -> None:
    model = create_model("resnet18", ["a", "b"], weights="none", value_range=[0, 4095]).model
    saved = model.description.to_dict()
    assert ModelDescription.from_dict(json.loads(json.dumps(saved))).preprocessing.value_range == (0, 4095)
    del saved["preprocessing"]["value_range"]
    assert ModelDescription.from_dict(saved).preprocessing.value_range is None


def test_starting_from_a_run_the_new_data_decides(run: Path) -> None:
    def created(**options: Any) -> Any:
        classes, weights = ClassMap.from_names(["disc"]), str(run)
        return create_model(DETECT[1], classes, weights=weights, **options).model.preprocessing.value_range

    assert created() == (0, 4095)
    assert created(image_size=64) == (0, 4095)
    assert created(value_range=(0, 1023)) == (0, 1023)


def test_a_model_without_a_range_reports_the_first_dark_image_once(discs: Path) -> None:
    table = read(discs)
    dataset = Dataset(table, Preprocessing(96, 0), task="detect")
    with pytest.warns(UserWarning, match=r"0\.tif: more than 8 bits .* has \d+ of 256 grey levels; train with"):
        assert dataset[0][0].max() <= 16, "as in earlier versions"
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        dataset[1]
    model = create_model("resnet18", ["a"], weights="none").model
    with pytest.warns(UserWarning, match="without a value range"):
        Predictor(model)(discs / "images" / "0.tif")
    with pytest.raises(DataError, match="need a model with a value range"):
        Predictor(model)(np.zeros((8, 8, 3), np.uint16))


def test_own_data_of_more_than_8_bits() -> None:
    from PIL import Image

    values = np.random.default_rng(0).integers(0, 4096, (8, 8)).astype(np.uint16)
    network = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.LazyLinear(2))
    model = OwnClassifier(network, ["a", "b"], image_size=8, value_range=(0, 4095))
    sources: list[Any] = [values, Image.fromarray(values), torch.from_numpy(values.astype(np.int32))[None]]
    for source in sources:
        pixels, _ = LabelledImages([(source, 0)], model.preprocessing, classes=["a", "b"])[0]
        np.testing.assert_array_equal(pixels[0].numpy(), values >> 4)
        without = LabelledImages([(source, 0)], Preprocessing(8, 0, crop=8), classes=["a", "b"])
        if isinstance(source, Image.Image):  # as files
            np.testing.assert_array_equal(without[0][0][0].numpy(), values >> 8)
        else:
            with pytest.raises(DataError, match="need a model with a value range"):
                without[0]


def table_files(table: AnnotationTable) -> list[str]:
    return [path.name for path in table.files()]


def test_files_of_a_table(discs: Path) -> None:
    assert table_files(read(discs)) == [f"{row}.tif" for row in range(8)]
    assert table_files(read(discs).subset([3, 1, 3])) == ["3.tif", "1.tif"]


def test_inspect_and_convert(discs: Path, tmp_path: Path, capsys: Any) -> None:
    assert main(["inspect", str(discs), "--output", str(tmp_path / "sheet")]) == 0
    text = capsys.readouterr().out
    assert "pixel values: values 0..4095 of 16-bit images are scaled to 8 bits" in text
    assert "problems: none found" in text
    assert np.percentile(decode_image(tmp_path / "sheet" / "sheet.jpg"), 5) < 80
    assert main(["convert", str(discs), str(tmp_path / "voc"), "--to", "voc"]) == 0
    (copy,) = (tmp_path / "voc").rglob("0.tif")
    assert copy.read_bytes() == (discs / "images" / "0.tif").read_bytes()


@pytest.mark.slow
@pytest.mark.parametrize(("top", "dtype"), [(900, np.float32), (16383, np.int32)])
def test_other_types_are_trained_too(
    tmp_path: Path, train: Any, no_images: None, no_warnings: None, top: int, dtype: type
) -> None:
    data = write_discs(tmp_path / "data", 4, top=top, dtype=dtype)
    run = train(data, tmp_path / "run", *DETECT)
    assert load(run).preprocessing.value_range == (0, top)


@pytest.mark.slow
def test_dark_12_bit_images_are_learned(tmp_path: Path, small: tuple[str, ...], no_images: None) -> None:
    """16 images, values up to 1300 of 4095 in 16-bit files: AP50 is about 1; with the high byte nothing is learned."""
    data = write_discs(tmp_path / "data", 16, top=1300)
    training = ("--weights", "bundled", "--freeze", "backbone", "--epochs", "5", "--eval-epochs", "5")
    rates = ("--optimizer", "adamw", "--lr", "0.002", "--head-lr-mult", "3")
    ap50 = {}
    for name, options in (("range", ()), ("high byte", ("--value-range", "[0,65535]"))):
        arguments = ["train", str(data), "--output", str(tmp_path / name), *small, *DETECT, *training, *rates, *options]
        assert main(arguments) == 0
        ap50[name] = json.loads((tmp_path / name / "metrics.json").read_text())["bbox"]["AP50"]
    assert ap50["range"] > 0.9
    assert ap50["high byte"] < 0.3, "control: the rule of earlier versions"


def test_a_resumed_run_keeps_the_range_of_its_checkpoint(discs: Path) -> None:
    """A run of an earlier version has none; a new one would not fit what it has learned."""
    table, machine = read(discs), MachineFacts("cpu", cores=2, memory=2**33)
    options = {"data": str(discs), "task": "detect", "model": DETECT[1], "weights": "none"}
    assert make_plan(TrainConfig(**options), table, table, machine).model.value_range == [0, 4095]
    assert make_plan(TrainConfig(**options, resume="run"), table, table, machine).model.value_range is None
