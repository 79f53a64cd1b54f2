"""Anchors of an RPN that starts from scratch follow the boxes."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from detseg.annotations.builder import TableBuilder
from detseg.annotations.table import AnnotationTable
from detseg.classes import ClassMap
from detseg.preprocess import Preprocessing
from detseg.training.anchors import fitted_anchor_sizes

SLIM = "fasterrcnn_mobilenet_v2_fpn_slim"  # own anchors from 16
PLAIN = "fasterrcnn_mobilenet_v2_fpn"  # own anchors from 32


def table_of(sides: list[float], size: int = 400) -> AnnotationTable:
    """One image of ``size`` pixels with square boxes of these sides."""
    builder = TableBuilder(ClassMap.from_names(["a"]), ".", source="test")
    builder.add_image("a.jpg", (size, size))
    for side in sides:
        builder.add_instance([0, 0, side, side], 1)
    return builder.build()


@pytest.mark.parametrize(
    ("arch", "sides", "image_size", "found"),
    [
        (SLIM, [], 400, None),
        (SLIM, [100], 400, None),  # fine enough already
        (SLIM, [9], 400, [8, 16, 32, 64, 128]),
        (SLIM, [18], 200, [8, 16, 32, 64, 128]),  # as the network sees it
        (SLIM, [1], 400, [8, 16, 32, 64, 128]),  # below two pixels of the finest map there is nothing to see
        (PLAIN, [17], 400, [16, 32, 64, 128, 256]),
        (PLAIN, [100] * 99 + [1], 400, None),  # one odd box decides nothing
        ("fasterrcnn_mobilenet_v3_large_fpn", [9], 400, None),  # several sizes a map
    ],
)
def test_anchors(arch: str, sides: list[float], image_size: int, found: list[int] | None) -> None:
    preprocessing = Preprocessing(min_size=image_size, max_size=2 * image_size)
    assert fitted_anchor_sizes(arch, "none", table_of(sides), preprocessing) == found


def test_a_trained_rpn_keeps_its_anchors(tmp_path: Path) -> None:
    preprocessing, small = Preprocessing(min_size=400, max_size=800), table_of([9])
    torch.save({"rpn.head.conv.0.0.weight": torch.zeros(1)}, tmp_path / "detector.pth")
    torch.save({"features.0.0.weight": torch.zeros(1)}, tmp_path / "backbone.pth")
    assert fitted_anchor_sizes(PLAIN, "coco", small, preprocessing) is None
    assert fitted_anchor_sizes(PLAIN, str(tmp_path / "detector.pth"), small, preprocessing) is None
    assert fitted_anchor_sizes(PLAIN, str(tmp_path / "backbone.pth"), small, preprocessing) == [8, 16, 32, 64, 128]
    assert fitted_anchor_sizes(PLAIN, "imagenet", small, preprocessing) == [8, 16, 32, 64, 128]
