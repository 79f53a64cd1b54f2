"""Limit the number of boxes in the mask loss: how many, which ones, and what does not change."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from detseg.errors import DataError
from detseg.models import describe

MASKS = "maskrcnn_mobilenet_v3_large_fpn_slim"


def step(small: Any, limit: int | None) -> tuple[dict[str, Tensor], list[int]]:
    """Return the losses of one batch, and the number of boxes of each image in the mask head."""
    model = small.detector(MASKS, mask_rois_per_image=limit)
    counts: list[int] = []
    pool = model.roi_heads.mask_roi_pool
    pool.register_forward_pre_hook(lambda _, inputs: counts.extend(len(boxes) for boxes in inputs[1]))
    images, targets = small.batch([(96, 96), (96, 96), (96, 96)], [0, 2, 5])
    torch.manual_seed(0)
    losses = model(images, targets)
    sum(losses.values(), torch.zeros(())).backward()
    assert all(parameter.grad is not None for parameter in model.roi_heads.mask_head.parameters())
    return losses, counts


def test_number_of_boxes_per_image_is_limited(small: Any) -> None:
    all_losses, all_counts = step(small, None)
    assert all_counts[0] == 0
    assert min(all_counts[1:]) > 1, "control: the limit has an effect"
    for limit in (1, 2):
        losses, counts = step(small, limit)
        assert counts == [min(limit, count) for count in all_counts]
        assert losses.keys() == all_losses.keys()
        assert all(torch.isfinite(loss) for loss in losses.values())
        assert losses["loss_mask"] != all_losses["loss_mask"], "control: other boxes, another loss"
        assert losses["loss_classifier"] == all_losses["loss_classifier"], "the box head uses all of its boxes"
        assert losses["loss_box_reg"] == all_losses["loss_box_reg"]


def test_a_limit_above_all_counts_changes_nothing(small: Any) -> None:
    losses, counts = step(small, None)
    same, _ = step(small, max(counts))
    assert all(torch.equal(same[name], loss) for name, loss in losses.items())


def test_boxes_are_sampled_randomly_in_every_step(small: Any) -> None:
    heads = small.detector(MASKS, mask_rois_per_image=2).roi_heads
    labels = torch.tensor([0, 3, 1, 0, 2, 1])
    samples = {tuple(heads._select_positive(labels).tolist()) for _ in range(40)}
    assert samples <= {(a, b) for a in (1, 2, 4, 5) for b in (2, 4, 5) if a < b}
    assert len(samples) > 3
    heads.mask_rois_per_image = None
    assert heads._select_positive(labels).tolist() == [1, 2, 4, 5]


@pytest.mark.parametrize(("arch", "limit"), [(MASKS, 0), ("fasterrcnn_mobilenet_v3_large_fpn_slim", 6)])
def test_invalid_limits_are_refused(small: Any, arch: str, limit: int) -> None:
    with pytest.raises(DataError, match="mask_rois_per_image"):
        describe(arch, small.classes, weights="none", mask_rois_per_image=limit)
