"""Test pretraining: reproducible and resumable, with small weights files and a correct card."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from detseg.checkpoints.checkpoint import load_checkpoint
from detseg.classes import ClassMap
from detseg.errors import DataError
from detseg.models import ModelDescription, build_model, describe
from detseg.models.weights.load import load_weights
from detseg.options import PretrainConfig
from detseg.recipes.pretrain import pretrain
from detseg.runtime.reporter import Event, Reporter
from detseg.synthetic.scenes import SHAPE_FAMILIES
from detseg.training.pretraining import ANCHOR_SIZES

TINY = PretrainConfig(
    epochs=2, epoch_steps=2, eval_epochs=2, batch_size=2, image_size=64, rois_per_image=8, val_scenes=3, device="cpu"
)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pretrained")
    return pretrain(replace(TINY, output=str(folder / "run"))).parent


def test_the_file_is_float16_and_has_a_card(run: Path) -> None:
    checkpoint = load_checkpoint(run / "weights.safetensors")
    assert {tensor.dtype for tensor in checkpoint.weights.values()} == {torch.float16, torch.int64}
    assert not checkpoint.optimizer
    assert checkpoint.position.step == 4
    assert ModelDescription.from_dict(checkpoint.model).class_map.names == SHAPE_FAMILIES
    card = (run / "card.md").read_text()
    assert hashlib.sha256((run / "weights.safetensors").read_bytes()).hexdigest() in card
    assert "8 scenes of 64 pixels" in card
    assert "segm_AP50" in card
    assert "python -m detseg pretrain --epochs 2" in card


def test_other_models_start_from_it(run: Path) -> None:
    weights = str(run / "weights.safetensors")
    classes = ClassMap.from_names(["star", "bolt"])
    description = describe("fasterrcnn_mobilenet_v3_large_fpn_slim", classes, weights=weights)
    assert description.anchor_sizes == ANCHOR_SIZES, "the anchors of the RPN"
    report = load_weights(build_model(description), weights)
    assert report.matched == (("star", "star"),)
    assert not report.mismatched


def test_it_is_reproducible(run: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """Also with a reporter that does not print."""
    events: list[Event] = []
    capfd.readouterr()
    again = pretrain(replace(TINY, output=str(tmp_path / "again")), reporter=Reporter(events.append))
    assert capfd.readouterr().out == ""
    saved = [json.loads(text) for text in (tmp_path / "again" / "metrics.jsonl").read_text().splitlines()]
    assert [event.values["row"] for event in events if event.kind == "epoch"] == saved
    assert events[-1].kind == "done"
    other = pretrain(replace(TINY, output=str(tmp_path / "other"), seed=1))
    assert again.read_bytes() == (run / "weights.safetensors").read_bytes()
    assert other.read_bytes() != again.read_bytes(), "control"


def test_it_starts_from_weights(run: Path, tmp_path: Path) -> None:
    start = run / "weights.safetensors"
    later = pretrain(replace(TINY, output=str(tmp_path / "later"), weights=str(start), lr=1e-30, seed=1))
    first, second = (load_checkpoint(path).weights for path in (start, later))
    trainable = [name for name in first if "running" not in name and "num_batches" not in name]
    assert all(torch.equal(first[name], second[name]) for name in trainable), (
        "without a learning rate no weight changes"
    )
    scratch = pretrain(replace(TINY, output=str(tmp_path / "scratch"), lr=1e-30, seed=1))
    assert not all(torch.equal(first[n], w) for n, w in load_checkpoint(scratch).weights.items() if n in trainable), (
        "control"
    )
    card = (tmp_path / "later" / "card.md").read_text()
    assert f"starting weights | weights.safetensors, sha256 {hashlib.sha256(start.read_bytes()).hexdigest()}" in card
    assert card.count("| command |") == 2, "the card of the starting weights follows"


def test_it_resumes_where_it_stopped(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from detseg.training import trainer

    def broken(*args: object, **kwargs: object) -> None:
        raise OSError("no space left")

    folder = tmp_path / "broken"
    with monkeypatch.context() as patch:
        patch.setattr(trainer, "write_rows", _second_time(trainer.write_rows, broken))
        with pytest.raises(OSError, match="no space"):
            pretrain(replace(TINY, output=str(folder)))
    assert load_checkpoint(folder / "last.safetensors").position.epoch == 1
    with pytest.raises(DataError, match="resume it with --resume"):
        pretrain(replace(TINY, output=str(folder)))
    weights = pretrain(PretrainConfig(resume=str(folder), device="cpu"))
    assert weights.read_bytes() == (run / "weights.safetensors").read_bytes()


def _second_time(first: object, second: object) -> object:
    calls = []

    def call(*args: object) -> object:
        calls.append(args)
        return (first if len(calls) == 1 else second)(*args)  # type: ignore[operator]

    return call


@pytest.mark.slow
def test_two_processes_train_together(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--standalone"]
    command += [
        "-m",
        "detseg",
        "pretrain",
        "--epochs",
        "1",
        "--epoch-steps",
        "2",
        "--batch-size",
        "4",
        "--val-scenes",
        "2",
    ]
    command += ["--val-scenes", "2", "--image-size", "64", "--rois-per-image", "8", "--device", "cpu", "--output"]
    for name in ("one", "two"):
        environment = os.environ | {"OMP_NUM_THREADS": "1"}
        subprocess.run([*command, str(tmp_path / name)], check=True, env=environment, capture_output=True)
    first, second = (load_checkpoint(tmp_path / name / "last.safetensors").weights for name in ("one", "two"))
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert "torchrun --nproc-per-node 2 -m detseg pretrain" in (tmp_path / "one" / "card.md").read_text()
    invalid = [*command, str(tmp_path / "three"), "--batch-size", "3"]
    result = subprocess.run(invalid, capture_output=True, text=True)
    assert result.returncode
    assert "cannot be divided among 2 processes" in result.stderr


@pytest.mark.usefixtures("no_images")
def test_from_a_labelled_set(parts: Path, tmp_path: Path) -> None:
    """Like ``train`` from scratch, then the small file and its card; also when it is resumed."""
    options = replace(TINY, data=str(parts), output=str(tmp_path / "run"), epochs=1)
    weights = pretrain(options)
    checkpoint = load_checkpoint(weights)
    assert {tensor.dtype for tensor in checkpoint.weights.values()} == {torch.float16, torch.int64}
    assert ModelDescription.from_dict(checkpoint.model).class_map.names == ("bolt", "nut", "washer")
    card = (tmp_path / "run" / "card.md").read_text()
    assert hashlib.sha256(weights.read_bytes()).hexdigest() in card
    assert "state it before you share the weights" in card, "the licence of the data"
    before = weights.read_bytes()
    weights.unlink()
    assert pretrain(replace(TINY, resume=str(tmp_path / "run"))).read_bytes() == before
