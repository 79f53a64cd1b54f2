"""Test mask targets and mask logits against torchvision's: the same values, computed inside the boxes only."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torchvision.models.detection.mask_rcnn import MaskRCNNPredictor
from torchvision.models.detection.roi_heads import project_masks_on_boxes

from detseg.models.heads import own_class_logits
from detseg.models.ops import mask_targets as module
from detseg.models.ops.mask_targets import mask_targets

SIZES = [(1, 1), (1, 50), (37, 1), (60, 80), (200, 333)]


def random_masks(size_hw: tuple[int, int], count: int = 3) -> Tensor:
    return (torch.rand(count, *size_hw, generator=torch.Generator().manual_seed(1)) > 0.5).to(torch.uint8)


def corners(first: Tensor, second: Tensor) -> Tensor:
    return torch.cat([torch.minimum(first, second), torch.maximum(first, second)], dim=1)


def boxes(kind: str, size_hw: tuple[int, int]) -> Tensor:
    generator = torch.Generator().manual_seed(2)
    size_wh = torch.tensor([size_hw[1], size_hw[0]])
    first, second = torch.rand(2, 20, 2, generator=generator) * size_wh
    return {
        "none": torch.zeros(0, 4),
        "whole image": torch.cat([torch.zeros(1, 2), size_wh[None].float()], dim=1),
        "inside": corners(first, second),
        "partly outside": corners(first * 3 - size_wh, second * 3 - size_wh),
        "far outside": corners(first, second) + 5000,
        "no area": torch.cat([first, first], dim=1),
    }[kind]


KINDS = ["none", "whole image", "inside", "partly outside", "far outside", "no area"]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("size_hw", SIZES)
def test_equals_torchvisions(size_hw: tuple[int, int], kind: str) -> None:
    masks, box_tensor = random_masks(size_hw), boxes(kind, size_hw)
    matched = torch.arange(len(box_tensor)) % len(masks)
    actual, reference = (
        mask_targets(masks, box_tensor, matched, 28),
        project_masks_on_boxes(masks, box_tensor, matched, 28),
    )
    exact = project_masks_on_boxes(masks.double(), box_tensor.double(), matched, 28)
    assert actual.shape == reference.shape
    assert actual.dtype == reference.dtype
    torch.testing.assert_close(actual, reference, rtol=0, atol=2e-6)
    torch.testing.assert_close(mask_targets(masks, box_tensor.double(), matched, 28), exact, rtol=0, atol=1e-13)


def test_no_instance() -> None:
    targets = mask_targets(torch.zeros(0, 8, 8, dtype=torch.uint8), torch.zeros(0, 4), torch.zeros(0).long(), 28)
    assert targets.shape == (0, 28, 28)


def test_a_mask_of_one_pixel() -> None:
    masks = torch.zeros(1, 40, 40, dtype=torch.uint8)
    masks[0, 7, 9] = 1
    box_tensor = torch.tensor([[9.0, 7, 10, 8], [0, 0, 40, 40], [20, 20, 30, 30]])
    reference = project_masks_on_boxes(masks, box_tensor, torch.zeros(3).long(), 28)
    actual = mask_targets(masks, box_tensor, torch.zeros(3).long(), 28)
    torch.testing.assert_close(actual, reference, rtol=0, atol=1e-6)
    assert actual.flatten(1).sum(1).gt(0).tolist() == [True, True, False]


def test_control_without_border_rules_results_differ(monkeypatch: pytest.MonkeyPatch) -> None:
    original = module.axis_weights
    monkeypatch.setattr(module, "axis_weights", lambda a, b, bins, size: original(a.clamp(min=0), b, bins, size))
    masks, box_tensor = random_masks((60, 80)), boxes("partly outside", (60, 80))
    matched = torch.zeros(len(box_tensor)).long()
    difference = mask_targets(masks, box_tensor, matched, 28) - project_masks_on_boxes(masks, box_tensor, matched, 28)
    assert difference.abs().max() > 0.1


@pytest.mark.parametrize("count", [0, 1, 6])
def test_logits_of_the_own_class(count: int) -> None:
    torch.manual_seed(0)
    predictor, labels = MaskRCNNPredictor(8, 12, 5), torch.arange(count) % 4 + 1
    pooled = torch.randn(count, 8, 14, 14).to(memory_format=torch.channels_last)
    results = []
    for logits in (own_class_logits(predictor, pooled, labels), predictor(pooled)[torch.arange(count), labels]):
        predictor.zero_grad()
        logits.square().sum().backward()
        results.append((logits, [parameter.grad for parameter in predictor.parameters()]))
    torch.testing.assert_close(results[0], results[1], rtol=1e-4, atol=1e-4)
    if count > 1:
        assert not torch.allclose(results[0][0], own_class_logits(predictor, pooled, labels.flip(0)), atol=1e-2)
