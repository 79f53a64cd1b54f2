"""Runs of a detector, a keypoint model and a classifier, read back from a TensorBoard that shows them side by side."""

from __future__ import annotations

import json
import subprocess
import sys
import time
import urllib.parse
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from detseg.cli import main
from detseg.options import EvaluateConfig
from detseg.runtime.reporter import silent
from detseg.training.figures import pr_curves
from detseg.training.run_evaluation import saved_options, select_split
from tests.training.test_keypoint_runs import write_moths

pytest.importorskip("tensorboard")

Get = Callable[..., Any]
RUNS = ("detector", "keypoints", "classifier")


@pytest.fixture(scope="module")
def runs(parts: Path, train: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with three runs of two epochs; the detector was stopped after its first epoch and resumed."""
    folder, data = tmp_path_factory.mktemp("runs"), tmp_path_factory.mktemp("data")
    train(parts, folder / "detector", "--tensorboard", "--tensorboard-weights", "--eval-epochs", "1")
    assert main(["train", "--resume", str(folder / "detector"), "--epochs", "2"]) == 0
    moths = write_moths(data / "moths", 5, seed=0)
    slim = ("--model", "keypointrcnn_mobilenet_v3_large_fpn_slim")
    train(moths, folder / "keypoints", *slim, "--tensorboard", "--epochs", "2")
    rng = np.random.default_rng(0)
    for name, colour in (("red", (0, 0, 200)), ("blue", (200, 0, 0))):
        (data / "colours" / name).mkdir(parents=True)
        for i in range(4):
            image = np.clip(np.array(colour) + rng.integers(-40, 40, (40, 50, 3)), 0, 255).astype(np.uint8)
            cv2.imwrite(str(data / "colours" / name / f"{i}.png"), image)
    train(
        data / "colours", folder / "classifier", "--task", "classify", "--model", "mobilenet_v3_small", "--epochs", "2",
        "--image-size", "64", "--rois-per-image", "null", "--detections-per-image", "null", "--tensorboard",
    )  # fmt: skip
    return folder


@pytest.fixture(scope="module")
def get(runs: Path) -> Get:
    """``get(path, **query)`` reads from a TensorBoard on loopback; JSON is parsed."""
    from tensorboard import program

    board = program.TensorBoard()
    board.configure(
        argv=["", "--logdir", str(runs), "--host", "127.0.0.1", "--port", "0", "--load_fast", "false",
              "--reload_interval", "0"]
    )  # fmt: skip
    url = board.launch().rstrip("/")

    def read(path: str, data: Any = None, **query: Any) -> Any:
        request = urllib.request.Request(f"{url}/data/{path}?{urllib.parse.urlencode(query)}")
        if data is not None:
            request.data, request.headers = json.dumps(data).encode(), {"Content-type": "application/json"}
        with urllib.request.urlopen(request, timeout=30) as answer:
            content = answer.read()
            return json.loads(content) if "json" in answer.headers["Content-Type"] else content

    for _ in range(100):
        tags = read("plugin/scalars/tags")
        if len(tags) == len(RUNS) and all("best/val_images" in names for names in tags.values()):
            break
        time.sleep(0.2)
    return read


def test_histograms_need_tensorboard(parts: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["train", str(parts), "--weights", "bundled", "--output", str(tmp_path / "run"), "--epochs", "1"]
    assert main([*arguments, "--tensorboard-weights"]) == 1
    assert "add --tensorboard" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_the_package_is_missing(
    parts: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("detseg.reports.tensorboard.importlib.util.find_spec", lambda name: None)
    assert main(["train", str(parts), "--output", str(tmp_path / "run"), "--tensorboard"]) == 1
    assert "pip install 'detseg[tensorboard]'" in capsys.readouterr().err
    assert not (tmp_path / "run").exists(), "before anything is computed"


@pytest.mark.slow
def test_scalars(get: Get, runs: Path) -> None:
    tags = get("plugin/scalars/tags")
    assert set(tags) == {f"{run}/tensorboard" for run in RUNS}, "side by side"
    common = {"loss/train", "loss/val", "speed/images_per_second", "lr/backbone"}
    assert common <= set.intersection(*map(set, tags.values()))
    assert {"loss_mask/train", "loss_mask/val", "segm/AP", "bbox/AP50", "segm_AP_per_class/bolt",
            "gradient_norm/mask_head", "gradient_norm/backbone"} <= set(tags["detector/tensorboard"])  # fmt: skip
    assert {"keypoints/AP", "keypoints_AP50_per_class/moth"} <= set(tags["keypoints/tensorboard"])
    assert {"accuracy/train", "accuracy/val", "accuracy_per_class/red"} <= set(tags["classifier/tensorboard"])
    rows = [json.loads(line) for line in (runs / "detector" / "metrics.jsonl").read_text().splitlines()]
    for tag, name in (("loss/train", "train_loss"), ("loss_mask/val", "val_loss_mask"), ("lr/heads", "lr_heads")):
        points = get("plugin/scalars/scalars", run="detector/tensorboard", tag=tag)
        assert [step for _, step, _ in points] == [1, 2], "one curve, though the run was resumed"
        assert [value for *_, value in points] == pytest.approx([row[name] for row in rows], rel=1e-6)
    assert all(row["gradient_norm_backbone"] > 0 for row in rows)


@pytest.mark.slow
@pytest.mark.parametrize(("run", "columns"), [("detector", 4), ("keypoints", 2), ("classifier", 2)])
def test_drawings(get: Get, run: str, columns: int) -> None:
    """Ground truth beside prediction of a detector's images."""
    images = get("plugin/images/images", run=f"{run}/tensorboard", tag="validation", sample=0)
    assert [image["step"] for image in images] == [1, 2]
    drawn = [
        cv2.imdecode(np.frombuffer(get(f"plugin/images/individualImage?{image['query']}&"), np.uint8), 1)
        for image in images
    ]
    assert all(image.shape[1] >= columns * 300 for image in drawn)
    assert (drawn[0].std(axis=2) > 5).any(), "coloured"


@pytest.mark.slow
@pytest.mark.parametrize(("run", "count"), [("detector", 12), ("keypoints", 4), ("classifier", 2)])
def test_pr_curves(get: Get, runs: Path, run: str, count: int) -> None:
    """Those of the best weights, which are loaded again, are those of their epoch."""
    options = saved_options(runs / run)
    table = select_split(EvaluateConfig(run=str(runs / run)), runs / run, options, silent()).table
    best = json.loads((runs / run / "finished.json").read_text())["best_epoch"]
    curves = pr_curves(table, runs / run)
    assert len(curves) == count
    shown = get("plugin/pr_curves/tags")[f"{run}/tensorboard"]
    for curve in curves:
        tag = f"pr_curves/{curve.title}/{curve.class_name}"
        assert tag in shown
        (entry,) = (
            entry
            for entry in get("plugin/pr_curves/pr_curves", run=f"{run}/tensorboard", tag=tag)[f"{run}/tensorboard"]
            if entry["step"] == best
        )
        precision = curve.precision[::-1][: len(entry["precision"])]  # TensorBoard leaves out the end without hits
        np.testing.assert_allclose(entry["precision"], precision, atol=1e-6)
        assert not curve.precision[::-1][len(entry["precision"]) :].any() or len(entry["precision"]) == 101


@pytest.mark.slow
@pytest.mark.parametrize(
    ("run", "classes"),
    [("detector", {"bolt", "nut", "washer"}), ("keypoints", {"moth"}), ("classifier", {"red", "blue"})],
)
def test_projector(get: Get, run: str, classes: set[str]) -> None:
    name = f"{run}/tensorboard"
    assert name in get("plugin/projector/runs")
    (embedding,) = get("plugin/projector/info", run=name)["embeddings"]
    count, size = embedding["tensorShape"]
    vectors = np.frombuffer(get("plugin/projector/tensor", run=name, name="features"), np.float32).reshape(count, size)
    assert size > 100
    assert np.isfinite(vectors).all()
    assert len(np.unique(vectors, axis=0)) == count, "each object has its own"
    names = get("plugin/projector/metadata", run=name, name="features").decode().split()
    assert len(names) == count
    assert set(names) <= classes
    sprite = cv2.imdecode(np.frombuffer(get("plugin/projector/sprite_image", run=name, name="features"), np.uint8), 1)
    assert embedding["sprite"]["singleImageDim"] == [48, 48]
    assert sprite.shape[0] == 48 * int(np.ceil(np.sqrt(count)))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("run", "module"), [("detector", b"roi_heads"), ("keypoints", b"keypoint_head"), ("classifier", b"classifier")]
)
def test_graph(get: Get, run: str, module: bytes) -> None:
    graph = get("plugin/graphs/graph", run=f"{run}/tensorboard")
    assert module in graph
    assert graph.count(b'op: "aten::_convolution"') > 20


@pytest.mark.slow
def test_options_with_results(get: Get, runs: Path) -> None:
    query = {"experimentName": "", "allowedStatuses": ["STATUS_SUCCESS", "STATUS_UNKNOWN"], "colParams": [],
             "startIndex": 0, "sliceSize": 10}  # fmt: skip
    groups = {group["name"]: group for group in get("plugin/hparams/session_groups", query)["sessionGroups"]}
    assert set(groups) == {f"{run}/tensorboard" for run in RUNS}
    detector = groups["detector/tensorboard"]
    assert detector["hparams"]["epochs"] == 2, "those of the resumed run"
    assert detector["hparams"]["model"] == "maskrcnn_mobilenet_v3_large_fpn_slim"
    metrics = json.loads((runs / "detector" / "metrics.json").read_text())
    shown = {value["name"]["tag"]: value["value"] for value in detector["metricValues"]}
    assert shown["best/val_segm_AP"] == pytest.approx(metrics["segm"]["AP"], abs=1e-6)


@pytest.mark.slow
def test_histograms_on_request(get: Get) -> None:
    tags = get("plugin/histograms/tags")
    assert list(tags) == ["detector/tensorboard"], "only where it was asked for"
    assert "weights/roi_heads.box_predictor.cls_score.weight" in tags["detector/tensorboard"]


@pytest.mark.slow
def test_control_without_the_option(parts: Path, small: tuple[str, ...], runs: Path, tmp_path: Path) -> None:
    """Nothing is written or imported for TensorBoard, and the weights are the same."""
    arguments = ["train", str(parts), "--output", str(tmp_path / "plain"), *small, "--eval-epochs", "1"]
    code = (
        "import sys; from detseg.cli import main; assert main(sys.argv[1:]) == 0; "
        "names = [name for name in sys.modules if 'tensorboard' in name and not name.startswith('detseg')]; "
        "print('IMPORTED', names)"
    )
    result = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=True)
    assert result.stdout.endswith("IMPORTED []\n")
    assert not (tmp_path / "plain" / "tensorboard").exists()
    (row,) = (json.loads(line) for line in (tmp_path / "plain" / "metrics.jsonl").read_text().splitlines())
    assert not [name for name in row if name.startswith(("gradient_norm", "lr_"))]
    first = json.loads((runs / "detector" / "metrics.jsonl").read_text().splitlines()[0])
    same = {name: value for name, value in row.items() if name not in ("seconds", "images_per_second", "lr")}
    assert same == {name: first[name] for name in same}, "the run with it had the same losses and metrics"
