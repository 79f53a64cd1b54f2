"""Test the comparison of a training step: it runs, and it detects when the two sides are not the same step."""

from __future__ import annotations

import pytest
import torch

from detseg.benchmarks.speed import step
from detseg.benchmarks.speed.drawn_samples import drawn_samples
from detseg.benchmarks.speed.step import Case, compare, largest_difference

pytestmark = pytest.mark.slow

TINY = Case("slim", "maskrcnn_mobilenet_v3_large_fpn_slim", "bundled", (96, 128), turns=1)
CPU = torch.device("cpu")


def test_both_sides_run_the_same_step() -> None:
    frozen = Case("frozen", "fasterrcnn_mobilenet_v3_large_fpn_slim", "bundled", (96, 128), frozen=True, turns=1)
    full, heads = compare(CPU, (TINY, frozen))
    assert len(full.ours) == len(full.theirs) == 1
    assert full.ratio > 0
    assert "losses of 2 steps agree" in full.note
    assert "frozen" in heads.name


def test_control_another_network_is_detected(monkeypatch: pytest.MonkeyPatch) -> None:
    model_pair = step.model_pair

    def changed(case: Case) -> object:
        model, baseline = model_pair(case)
        with torch.no_grad():
            baseline.get_parameter("roi_heads.box_predictor.cls_score.bias")[0] += 0.5
        return model, baseline

    monkeypatch.setattr(step, "model_pair", changed)
    with pytest.raises(ArithmeticError, match="not the same steps"):
        compare(CPU, (TINY,))


@pytest.mark.parametrize(
    ("ours", "theirs", "agree"),
    [({}, {}, True), ({"loss": 2.0}, {"loss": 2.0008}, True), ({"loss": 2.0}, {"loss": 2.1}, False),
     ({"loss": float("nan")}, {"loss": float("nan")}, False)],
)  # fmt: skip
def test_losses_that_differ(ours: dict[str, float], theirs: dict[str, float], agree: bool) -> None:
    if agree:
        assert largest_difference([ours], [theirs]) < 1e-3
        return
    with pytest.raises(ArithmeticError, match="loss is"):
        largest_difference([ours], [theirs])


def test_boxes_match_their_masks() -> None:
    ((image, target),) = drawn_samples(1, (64, 96), instances=4, num_labels=3)
    assert image.shape == (3, 64, 96)
    assert image.dtype == torch.uint8
    for mask, box in zip(target["masks"], target["boxes"], strict=True):
        y, x = mask.nonzero().unbind(1)
        assert box.tolist() == [x.min(), y.min(), x.max() + 1, y.max() + 1]
