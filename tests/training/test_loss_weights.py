"""``--loss-weights``: parsed by the loss terms of the model, in the total of training and validation, and resumed."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from detseg.checkpoints import load_checkpoint
from detseg.classes import ClassMap
from detseg.cli import main
from detseg.errors import DataError
from detseg.models import build_model, describe, freeze
from detseg.training.loss_weights import parse_loss_weights

pytestmark = pytest.mark.usefixtures("no_images")

MASK = ("loss_classifier", "loss_box_reg", "loss_mask", "loss_objectness", "loss_rpn_box_reg")


@pytest.mark.parametrize(
    ("option", "expected"),
    [
        (None, {}),
        ("", {}),
        ("mask=2", {"loss_mask": 2.0}),
        (" mask = 2 , rpn=0.5", {"loss_mask": 2.0, "loss_objectness": 0.5, "loss_rpn_box_reg": 0.5}),
        ("rpn_box_reg=1e-1,", {"loss_rpn_box_reg": 0.1}),
        ("box=0", {"loss_classifier": 0.0, "loss_box_reg": 0.0}),
        (["mask=2", "classifier=3"], {"loss_mask": 2.0, "loss_classifier": 3.0}),
    ],
)
def test_parsed(option: Any, expected: dict[str, float]) -> None:
    assert parse_loss_weights(option, MASK) == expected


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ("masks=2", r"'masks' is not a loss term.*classifier, box_reg, mask, objectness, rpn_box_reg; rpn: objectness"),
        ("mask", "'mask' must be|the factor ''"),
        ("loss_mask=2", "'loss_mask' is not a loss term"),
        ("mask=-1", "factor '-1' must be a number of at least 0"),
        ("mask=nan", "factor 'nan'"),
        ("mask=inf", "factor 'inf'"),
        ("mask=two", "factor 'two'"),
        ("rpn=2,objectness=1", "objectness has two factors"),
        ("mask=1,mask=1", "mask has two factors"),
        ("mask=0,box=0,rpn=0", "every loss has factor 0"),
    ],
)
def test_rejected(option: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        parse_loss_weights(option, MASK)


def test_groups_are_those_of_the_model() -> None:
    with pytest.raises(DataError, match=r"'rpn' is not a loss term of this model; use .* classifier, box_reg; box:"):
        parse_loss_weights("rpn=2", ("loss_classifier", "loss_box_reg"))
    fields = ("loss_box", "loss_a=b")
    assert parse_loss_weights("box=2,a=b=3", fields) == {"loss_box": 2.0, "loss_a=b": 3.0}


def test_a_frozen_rpn_has_no_losses() -> None:
    model: Any = build_model(describe("maskrcnn_mobilenet_v3_large_fpn_slim", ClassMap(("a",)), weights="none"))
    assert set(model.loss_names()) == set(MASK)
    freeze(model, "rpn")
    assert set(model.loss_names()) == {"loss_classifier", "loss_box_reg", "loss_mask"}


def test_a_run(parts: Path, train: Any, tmp_path: Path, rows: Any, capsys: Any) -> None:
    """Terms are reported without their factors, and the total with them; a resumed run keeps the option."""
    plain = rows(train(parts, tmp_path / "plain"))[0]
    options = ("--loss-weights", "mask=2,rpn=0.5", "--epochs", "2")
    run = train(parts, tmp_path / "run", *options)
    for row in rows(run):
        for split in ("train", "val"):
            terms = {
                name.removeprefix(f"{split}_loss_"): row[name] for name in row if name.startswith(f"{split}_loss_")
            }
            total = terms["classifier"] + terms["box_reg"] + 2 * terms["mask"]
            assert row[f"{split}_loss"] == pytest.approx(total + 0.5 * (terms["objectness"] + terms["rpn_box_reg"]))
            assert row[f"{split}_loss"] != pytest.approx(sum(terms.values()), rel=1e-3), "control"
    assert 'loss_weights = "mask=2,rpn=0.5"' in (run / "config.toml").read_text()
    assert plain["train_loss"] == pytest.approx(sum(v for k, v in plain.items() if k.startswith("train_loss_")))
    again = tmp_path / "again"
    assert main(["train", "--config", str(run / "config.toml"), "--output", str(again), "--epochs", "1"]) == 0
    assert main(["train", "--resume", str(again), "--epochs", "2", "--device", "cpu"]) == 0
    assert rows(again)[0].keys() == rows(run)[0].keys()
    for row in rows(again):
        assert row["train_loss"] != pytest.approx(sum(v for k, v in row.items() if k.startswith("train_loss_")))
    capsys.readouterr()
    assert main(["train", "--resume", str(again), "--loss-weights", "mask=1", "--device", "cpu"]) == 1
    assert "--loss-weights mask=1 was mask=2,rpn=0.5" in capsys.readouterr().err


def test_factors_of_one_change_no_bit(parts: Path, train: Any, tmp_path: Path) -> None:
    runs = [train(parts, tmp_path / str(n), *option) for n, option in enumerate(
        ((), ("--loss-weights", "box=1"), ("--loss-weights", "box=3")))]  # fmt: skip
    plain, ones, control = (load_checkpoint(run / "last.safetensors").weights for run in runs)
    assert all(torch.equal(tensor, ones[name]) for name, tensor in plain.items())
    assert not all(torch.equal(tensor, control[name]) for name, tensor in plain.items())


def test_an_unknown_term_is_an_error_before_anything_is_written(
    parts: Path, small: tuple[str, ...], tmp_path: Path, capsys: Any
) -> None:
    output = tmp_path / "run"
    assert main(["train", str(parts), "--output", str(output), *small, "--loss-weights", "keypoint=2"]) == 1
    error = capsys.readouterr().err
    assert "'keypoint' is not a loss term of this model" in error
    assert "classifier, box_reg, mask, objectness, rpn_box_reg" in error
    assert not (output / "config.toml").exists()
    assert not (output / "last.safetensors").exists()


@pytest.mark.parametrize(
    ("freeze_level", "weights"), [("none", "mask=2"), pytest.param("rpn", "box=2", marks=pytest.mark.slow)]
)
def test_evaluate_writes_the_validation_losses_of_the_run(
    freeze_level: str, weights: str, parts: Path, train: Any, tmp_path: Path, rows: Any, capsys: Any
) -> None:
    options = ("--freeze", freeze_level, "--loss-weights", weights, "--cache", "off", "--seed", "3")
    run = train(parts, tmp_path / "run", *options)
    last = rows(run)[-1]
    expected = {name.removeprefix("val_"): value for name, value in last.items() if name.startswith("val_loss")}
    before = json.loads((run / "metrics.json").read_text())
    assert main(["evaluate", str(run), "--device", "cpu"]) == 0
    assert json.loads((run / "evaluate-val" / "metrics.json").read_text()) == before, "control: no losses without it"
    capsys.readouterr()
    assert main(["evaluate", str(run), "--device", "cpu", "--loss"]) == 0
    printed = capsys.readouterr().out
    written = json.loads((run / "evaluate-val" / "metrics.json").read_text())
    assert written["losses"] == pytest.approx(expected, rel=1e-5)
    assert {name: value for name, value in written.items() if name != "losses"} == before
    assert "losses, means over 2 images:" in printed
    assert f"{expected['loss_mask']:.4f}" in printed
    assert main(["evaluate", str(run), "--device", "cpu", "--loss", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == written


def test_evaluate_a_checkpoint_outside_a_run(classify: Any, colour_folders: Path, tmp_path: Path) -> None:
    run = classify(tmp_path / "run", "--epochs", "1")
    shutil.copy(run / "best.safetensors", tmp_path / "alone.safetensors")
    arguments = [str(tmp_path / "alone.safetensors"), str(colour_folders), "--split", "all", "--loss"]
    assert main(["evaluate", *arguments, "--device", "cpu", "--output", str(tmp_path / "out")]) == 0
    losses = json.loads((tmp_path / "out" / "metrics.json").read_text())["losses"]
    assert losses["loss"] == losses["loss_classifier"] > 0


def test_losses_of_a_results_file_are_an_error(tmp_path: Path, capsys: Any) -> None:
    assert main(["evaluate", "--predictions", "a.json", "--ground-truth", "b.json", "--loss"]) == 1
    assert "--loss with --predictions: a results file has no losses; evaluate a run folder" in capsys.readouterr().err
