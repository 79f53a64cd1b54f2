"""Fewer boxes whose masks are in the loss: how many, which, and what stays as it was."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from detseg.errors import DataError
from detseg.models import describe

MASKS = "maskrcnn_mobilenet_v3_large_fpn_slim"


def step(small: Any, most: int | None) -> tuple[dict[str, Tensor], list[int]]:
    """Losses of one batch, and how many boxes of each image went into the mask head."""
    model = small.detector(MASKS, mask_rois_per_image=most)
    counts: list[int] = []
    pool = model.roi_heads.mask_roi_pool
    pool.register_forward_pre_hook(lambda _, given: counts.extend(len(boxes) for boxes in given[1]))
    images, targets = small.batch([(96, 96), (96, 96), (96, 96)], [0, 2, 5])
    torch.manual_seed(0)
    losses = model(images, targets)
    sum(losses.values(), torch.zeros(())).backward()
    assert all(parameter.grad is not None for parameter in model.roi_heads.mask_head.parameters())
    return losses, counts


def test_so_many_boxes_of_an_image_at_most(small: Any) -> None:
    every, all_counts = step(small, None)
    assert all_counts[0] == 0
    assert min(all_counts[1:]) > 1, "there is something to leave out"
    for most in (1, 2):
        losses, counts = step(small, most)
        assert counts == [min(most, count) for count in all_counts]
        assert losses.keys() == every.keys()
        assert all(torch.isfinite(loss) for loss in losses.values())
        assert losses["loss_mask"] != every["loss_mask"], "control: other boxes, another loss"
        assert losses["loss_classifier"] == every["loss_classifier"], "the box head keeps all of its boxes"
        assert losses["loss_box_reg"] == every["loss_box_reg"]


def test_enough_for_all_changes_nothing(small: Any) -> None:
    every, counts = step(small, None)
    same, _ = step(small, max(counts))
    assert all(torch.equal(same[name], loss) for name, loss in every.items())


def test_which_boxes_is_drawn_anew(small: Any) -> None:
    heads = small.detector(MASKS, mask_rois_per_image=2).roi_heads
    labels = torch.tensor([0, 3, 1, 0, 2, 1])
    drawn = {tuple(heads._positive(labels).tolist()) for _ in range(40)}
    assert drawn <= {(a, b) for a in (1, 2, 4, 5) for b in (2, 4, 5) if a < b}
    assert len(drawn) > 3
    heads.mask_rois_per_image = None
    assert heads._positive(labels).tolist() == [1, 2, 4, 5]


@pytest.mark.parametrize(("arch", "most"), [(MASKS, 0), ("fasterrcnn_mobilenet_v3_large_fpn_slim", 6)])
def test_what_has_no_meaning_is_refused(small: Any, arch: str, most: int) -> None:
    with pytest.raises(DataError, match="mask_rois_per_image"):
        describe(arch, small.classes, weights="none", mask_rois_per_image=most)
