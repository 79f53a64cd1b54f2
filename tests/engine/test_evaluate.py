"""Evaluation and validation loss do not change the model, and use the ground truth of the table."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from detseg.annotations import AnnotationTable, read, subset
from detseg.datasets import Dataset, data_loader
from detseg.engine.evaluate import evaluate, validation_loss
from detseg.engine.evaluator import make_evaluator
from detseg.metrics import CocoMetrics
from detseg.models import Detector, build_model, describe

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def table() -> AnnotationTable:
    return subset(read(ROOT / "data" / "demo"), 4, 0)


@pytest.fixture(scope="module")
def model(table: AnnotationTable) -> Detector:
    torch.manual_seed(0)
    description = describe(
        "maskrcnn_mobilenet_v3_large_fpn_slim", table.class_map, weights="none", image_size=96, rois_per_image=16
    )
    detector = build_model(description)
    assert isinstance(detector, Detector)
    return detector


@pytest.fixture(scope="module")
def loader(table: AnnotationTable, model: Detector) -> torch.utils.data.DataLoader[Any]:
    return data_loader(Dataset(table, model.preprocessing, task="segment"), 2)


def test_validation_loss_does_not_change_the_model_or_the_generator(model: Detector, loader: Any) -> None:
    model.train()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    torch.manual_seed(5)
    state = torch.get_rng_state()
    losses = validation_loss(model, loader, "cpu", seed=1)
    assert torch.equal(torch.get_rng_state(), state)
    assert model.training
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert losses["loss"] == pytest.approx(sum(value for name, value in losses.items() if name != "loss"))
    assert validation_loss(model, loader, "cpu", seed=1) == losses
    assert validation_loss(model, loader, "cpu", seed=2) != losses  # control: another seed, other samples

    with torch.no_grad():  # control: a normal forward pass in training mode changes norm statistics
        model(*map(list, next(iter(loader))))
    assert not all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    model.load_state_dict(before)


def test_evaluate_restores_the_mode_also_after_an_error(model: Detector, loader: Any) -> None:
    class Broken:
        def update(self, targets: Any, outputs: Any) -> None:
            raise RuntimeError("broken")

        def compute(self) -> CocoMetrics:
            raise AssertionError

    for mode in (True, False):
        model.train(mode)
        with pytest.raises(RuntimeError, match="broken"):
            evaluate(model, loader, "cpu", evaluator=Broken())
        assert model.training is mode


def test_without_an_evaluator_it_is_chosen_for_the_dataset(
    model: Detector, loader: Any, table: AnnotationTable, capsys: pytest.CaptureFixture[str]
) -> None:
    metrics = evaluate(model, loader, "cpu")
    assert "segm" in capsys.readouterr().out
    evaluator = make_evaluator(table, "segment", model.preprocessing)
    assert evaluate(model, loader, "cpu", evaluator=evaluator).to_dict() == metrics.to_dict()
    assert capsys.readouterr().out == ""


def test_perfect_predictions_in_network_pixels_score_high_in_original_pixels(
    table: AnnotationTable, model: Detector, loader: Any
) -> None:
    class Oracle(torch.nn.Module):
        """Returns the ground truth of the dataset, at the input size of the network."""

        def __init__(self, shift: float) -> None:
            super().__init__()
            self.shift = shift
            self.targets = iter([target for _, targets in loader for target in targets])

        def forward(self, images: list[torch.Tensor]) -> list[Any]:
            from detseg.structures import RawPrediction

            predictions = []
            for _ in images:
                target = next(self.targets)
                boxes = target["boxes"].numpy() + self.shift
                count = len(boxes)
                scores = torch.linspace(1, 0.5, count).numpy()
                predictions.append(RawPrediction(boxes, target["labels"].numpy(), scores))
            return predictions

    def box_ap(shift: float) -> float:
        evaluator = make_evaluator(table, "detect", model.preprocessing)
        return evaluate(Oracle(shift), loader, "cpu", evaluator=evaluator).best()

    assert box_ap(0.0) > 0.75  # not 1: boxes around masks of 96 px are a pixel off in the original
    assert box_ap(6.0) < 0.3  # control
