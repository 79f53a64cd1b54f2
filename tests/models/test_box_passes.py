"""Boxes that go through the box head more than once: refined first, judged then."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from detseg.errors import DataError
from detseg.models import build_model, loss_mode
from detseg.models.heads import REFINED_IN_TRAINING

SIZE_HW = (96, 128)
ARCH = "maskrcnn_mobilenet_v2_fpn_slim"


@pytest.fixture
def heads(small: Any) -> Any:
    """RoI heads of two passes; the box head moves boxes far, so that a pass more is seen."""
    heads = small.detector(ARCH, box_passes=2).roi_heads.eval()
    nn.init.normal_(heads.box_predictor.bbox_pred.weight, std=0.02)
    nn.init.normal_(heads.box_predictor.bbox_pred.bias, std=0.5)
    nn.init.normal_(heads.box_predictor.cls_score.weight, std=0.3)
    heads.score_thresh = 0.0
    return heads


def maps(heads: Any) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(1)
    height, width = SIZE_HW
    channels = heads.box_head.fc6.in_features // 49
    names = heads.box_roi_pool.featmap_names
    return {
        name: torch.randn(1, channels, height // 2 ** (2 + level), width // 2 ** (2 + level), generator=generator)
        for level, name in enumerate(names)
    }


def boxes(count: int) -> Tensor:
    first, second = torch.rand(2, count, 2, generator=torch.Generator().manual_seed(2)) * torch.tensor(SIZE_HW[::-1])
    return torch.cat([torch.minimum(first, second), torch.maximum(first, second) + 2], 1)


def refined_one_by_one(heads: Any, features: dict[str, Tensor], proposals: Tensor) -> Tensor:
    """The definition: each box alone, moved by the deltas of its most likely class, within the image."""
    found = []
    for box in proposals:
        logits, deltas = heads.box_predictor(heads.box_head(heads.box_roi_pool(features, [box[None]], [SIZE_HW])))
        label = int(logits[0, 1:].argmax()) + 1
        x, y, width, height = (deltas[0, 4 * label : 4 * label + 4] / torch.tensor([10.0, 10, 5, 5])).tolist()
        size = box[2:] - box[:2]
        centre = box[:2] + size / 2 + torch.tensor([x, y]) * size
        half = size * torch.tensor([width, height]).exp() / 2
        limit = torch.tensor(SIZE_HW[::-1])
        low, high = (centre - half).clamp(min=0).minimum(limit), (centre + half).clamp(min=0).minimum(limit)
        if (high - low >= 1).all():
            found.append(torch.cat([low, high]))
    return torch.stack(found)


@torch.no_grad()
def test_predictions_are_of_refined_boxes(heads: Any) -> None:
    features, proposals = maps(heads), boxes(25)
    twice = heads(features, [proposals], [SIZE_HW])[0][0]
    refined = refined_one_by_one(heads, features, proposals)
    heads.box_passes = 1
    once, control = (heads(features, [one], [SIZE_HW])[0][0] for one in (refined, proposals))
    torch.testing.assert_close(twice["boxes"], once["boxes"], rtol=1e-3, atol=1e-2)
    torch.testing.assert_close(twice["scores"], once["scores"], rtol=1e-3, atol=1e-4)
    assert not torch.allclose(twice["scores"], control["scores"], atol=1e-2)


def test_training_draws_from_proposals_and_refined_ones(heads: Any) -> None:
    heads.train()
    count = REFINED_IN_TRAINING + 20
    features, proposals = maps(heads), boxes(count)
    (pool,) = heads._passed(features, [proposals], [SIZE_HW])
    assert torch.equal(pool[:count], proposals)
    expected = refined_one_by_one(heads, features, proposals[:REFINED_IN_TRAINING])
    torch.testing.assert_close(pool[count:], expected, rtol=1e-3, atol=1e-2)
    assert not pool.requires_grad
    heads.box_passes = 3
    (pool,) = heads._passed(features, [proposals], [SIZE_HW])
    again = refined_one_by_one(heads, features, expected)
    torch.testing.assert_close(pool[count + len(expected) :], again, rtol=1e-3, atol=1e-2)


@pytest.mark.parametrize("training", [True, False])
def test_no_proposal_is_no_error(heads: Any, training: bool) -> None:
    heads.train(training)
    (found,) = heads._passed(maps(heads), [torch.zeros(0, 4)], [SIZE_HW])
    assert found.shape == (0, 4)


@pytest.mark.slow
def test_norm_layers_of_a_head_do_not_count_refined_boxes(small: Any) -> None:
    arch = "fasterrcnn_resnet50_fpn_v2"
    twice = small.detector(arch, box_passes=2, norm="batch").train()
    norms = [one for one in twice.roi_heads.box_head.modules() if isinstance(one, nn.BatchNorm2d)]
    before = [int(one.num_batches_tracked) for one in norms]
    twice(*small.batch([(64, 64)]))
    assert len(norms) == 4
    assert [int(one.num_batches_tracked) - old for one, old in zip(norms, before, strict=True)] == [1] * 4
    with loss_mode(twice):
        twice(*small.batch([(64, 64)]))
    assert [int(one.num_batches_tracked) - old for one, old in zip(norms, before, strict=True)] == [1] * 4
    assert all(one.training for one in twice.modules())


@pytest.mark.parametrize("passes", [0, 4, -1])
def test_wrong_numbers_of_passes(small: Any, passes: int) -> None:
    description = small.detector(ARCH).description
    with pytest.raises(DataError, match=f"box_passes is {passes}; it must be 1, 2 or 3"):
        build_model(replace(description, box_passes=passes))
