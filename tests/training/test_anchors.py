"""Test anchor sizes fitted to the boxes for an RPN trained from scratch."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from detseg.annotations.builder import TableBuilder
from detseg.annotations.table import AnnotationTable
from detseg.classes import ClassMap
from detseg.preprocess import Preprocessing
from detseg.training.anchors import fitted_anchor_sizes

SLIM = "fasterrcnn_mobilenet_v2_fpn_slim"  # its smallest anchor is 16
LARGE_ANCHORS = "fasterrcnn_mobilenet_v2_fpn"  # its smallest anchor is 32


def table_of(sides: list[float], size: int = 400) -> AnnotationTable:
    """Return a table of one image of ``size`` pixels with square boxes of these sides."""
    builder = TableBuilder(ClassMap.from_names(["a"]), ".", source="test")
    builder.add_image("a.jpg", (size, size))
    for side in sides:
        builder.add_instance([0, 0, side, side], 1)
    return builder.build()


@pytest.mark.parametrize(
    ("arch", "sides", "image_size", "expected"),
    [
        (SLIM, [], 400, None),
        (SLIM, [100], 400, None),  # small enough
        (SLIM, [9], 400, [8, 16, 32, 64, 128]),
        (SLIM, [18], 200, [8, 16, 32, 64, 128]),  # at the network's input size
        (SLIM, [1], 400, [8, 16, 32, 64, 128]),  # at least two pixels of the finest map
        (LARGE_ANCHORS, [17], 400, [16, 32, 64, 128, 256]),
        (LARGE_ANCHORS, [100] * 99 + [1], 400, None),  # one outlier has no effect
        ("fasterrcnn_mobilenet_v3_large_fpn", [9], 400, None),  # several sizes per map
    ],
)
def test_fitted_anchor_sizes(arch: str, sides: list[float], image_size: int, expected: list[int] | None) -> None:
    preprocessing = Preprocessing(min_size=image_size, max_size=2 * image_size)
    assert fitted_anchor_sizes(arch, "none", table_of(sides), preprocessing) == expected


def test_a_trained_rpn_keeps_its_anchors(tmp_path: Path) -> None:
    preprocessing, small = Preprocessing(min_size=400, max_size=800), table_of([9])
    torch.save({"rpn.head.conv.0.0.weight": torch.zeros(1)}, tmp_path / "detector.pth")
    torch.save({"features.0.0.weight": torch.zeros(1)}, tmp_path / "backbone.pth")
    assert fitted_anchor_sizes(LARGE_ANCHORS, "coco", small, preprocessing) is None
    assert fitted_anchor_sizes(LARGE_ANCHORS, str(tmp_path / "detector.pth"), small, preprocessing) is None
    assert fitted_anchor_sizes(LARGE_ANCHORS, str(tmp_path / "backbone.pth"), small, preprocessing) == [
        8,
        16,
        32,
        64,
        128,
    ]
    assert fitted_anchor_sizes(LARGE_ANCHORS, "imagenet", small, preprocessing) == [8, 16, 32, 64, 128]
