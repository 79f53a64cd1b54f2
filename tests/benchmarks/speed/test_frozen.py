"""Test the comparison of frozen training: equal losses on both sides, and a check that detects unequal work."""

from __future__ import annotations

import pytest
import torch

from detseg.benchmarks.speed import frozen
from detseg.errors import DataError

CPU = torch.device("cpu")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arch", "level"),
    [("maskrcnn_resnet18_fpn", "rpn"), ("fasterrcnn_resnet18_fpn", "backbone"), ("maskrcnn_resnet18_fpn", "backbone")],
)
def test_both_implementations_have_equal_losses(arch: str, level: str) -> None:
    case = frozen.Case("small", arch, level, 1)
    comparison = frozen.detector(case, CPU, size_hw=(96, 128), images=2, turns=1)
    assert comparison.ratio > 0
    assert comparison.target == 1
    full = frozen.against_full(case, CPU, size_hw=(96, 128), turns=1)
    assert "full fine-tuning" in full.name


@pytest.mark.slow
def test_a_whole_run_of_a_classifier() -> None:
    comparison = frozen.classifier(CPU, size=64, images=10, epochs=2, turns=1)
    assert comparison.ratio > 0


def test_control_unequal_work_is_detected() -> None:
    with pytest.raises(DataError, match="not of equal work"):
        frozen._check_losses([1.0], [1.01])
