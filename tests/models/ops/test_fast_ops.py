"""Test faster operations against torchvision's modules: the same proposals, losses and gradients."""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torchvision.models import resnet18
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.rpn import RegionProposalNetwork, RPNHead
from torchvision.ops import FrozenBatchNorm2d

from detseg.models.ops import sampled_rpn
from detseg.models.ops.fast_ops import CACHED_SIZES, CachedAnchorGenerator
from detseg.models.ops.folded_norm import FoldedConv2d, fold_norms
from detseg.models.ops.sampled_rpn import SampledRPN
from detseg.models.outputs import image_list_of
from detseg.runtime.machine import available_cores

SIZES_HW = [(64, 96), (50, 90)]
LEVELS = [(16, 24), (8, 12), (4, 6), (1, 1)]
BOXES = {
    "none": [torch.zeros(0, 4), torch.zeros(0, 4)],
    "one": [torch.tensor([[5.0, 6, 30, 40]]), torch.zeros(0, 4)],
    "some": [torch.tensor([[5.0, 6, 30, 40], [40, 2, 90, 60]]), torch.tensor([[0.0, 0, 9, 9], [20, 10, 80, 45]])],
}


def rpns(depth: int = 1) -> tuple[RegionProposalNetwork, SampledRPN]:
    torch.manual_seed(0)
    sizes, ratios = tuple((8 * 2**level,) for level in range(len(LEVELS))), ((0.5, 1.0, 2.0),) * len(LEVELS)
    head = RPNHead(8, 3, conv_depth=depth)
    for parameter in head.parameters():
        nn.init.normal_(parameter, std=0.2)
    limits = {"training": 60, "testing": 30}
    reference = RegionProposalNetwork(AnchorGenerator(sizes, ratios), head, 0.7, 0.3, 40, 0.5, limits, limits, 0.7)
    return reference, SampledRPN.like(deepcopy(reference))


def maps(requires_grad: bool = True) -> list[Tensor]:
    generator = torch.Generator().manual_seed(1)
    return [torch.randn(2, 8, *size, generator=generator).requires_grad_(requires_grad) for size in LEVELS]


def run(rpn: RegionProposalNetwork, maps: list[Tensor], boxes: list[Tensor]) -> tuple[list[Tensor], dict[str, Tensor]]:
    torch.manual_seed(3)
    features = {str(level): feature_map for level, feature_map in enumerate(maps)}
    outputs: Any = rpn(image_list_of(SIZES_HW), features, [{"boxes": image_boxes} for image_boxes in boxes])
    return outputs


@pytest.mark.parametrize("boxes", BOXES.values(), ids=BOXES.keys())
@pytest.mark.parametrize(("depth", "requires_grad"), [(1, True), (1, False), (2, True)])
def test_rpn_equals_torchvisions(boxes: list[Tensor], depth: int, requires_grad: bool) -> None:
    results = []
    for rpn in rpns(depth):
        features = maps(requires_grad)
        proposals, losses = run(rpn, features, boxes)
        sum(losses.values(), torch.zeros(())).backward()
        gradients = [tensor.grad for tensor in (*rpn.parameters(), *features)]
        results.append((proposals, losses, gradients))
    expected, result = results
    torch.testing.assert_close(result[:2], expected[:2], rtol=1e-5, atol=1e-5)
    assert any(gradient is not None and gradient.abs().max() > 1e-3 for gradient in result[2])
    for actual, other in zip(result[2], expected[2], strict=True):
        torch.testing.assert_close(actual, other, rtol=1e-4, atol=1e-6)


def test_rpn_in_eval_mode_and_without_gradients() -> None:
    for evaluate in (True, False):
        with torch.no_grad():
            expected, result = (run(rpn.train(not evaluate), maps(), BOXES["some"]) for rpn in rpns())
        assert result[1] == expected[1]
        assert all(torch.equal(actual, other) for actual, other in zip(result[0], expected[0], strict=True))


def test_control_wrong_indices_change_the_gradient(monkeypatch: pytest.MonkeyPatch) -> None:
    def gradient(rpn: RegionProposalNetwork) -> Tensor:
        features = maps()
        sum(run(rpn, features, BOXES["some"])[1].values(), torch.zeros(())).backward()
        assert features[0].grad is not None
        return features[0].grad

    reference, sampled = rpns()
    expected = gradient(reference)
    original = sampled_rpn.AnchorIndex.of

    def mirrored(*args: Any) -> sampled_rpn.AnchorIndex:
        index = original(*args)
        return sampled_rpn.AnchorIndex(index.level, 1 - index.image, index.y, index.x, index.anchor, index.positives)

    monkeypatch.setattr(sampled_rpn.AnchorIndex, "of", mirrored)
    assert not torch.allclose(gradient(sampled), expected, rtol=1e-2, atol=1e-4)


def summed(threads: int, add: Callable[[Tensor, Tensor, torch.Size], Tensor], dtype: Any = torch.float32) -> Tensor:
    """Add half a million rows to a map of twelve pixels, so that every pixel gets rows of every thread."""
    generator = torch.Generator().manual_seed(4)
    pixel = torch.randint(12, (500_000,), generator=generator)
    grad_patches = torch.randn(500_000, 8, generator=generator)
    torch.set_num_threads(threads)
    return add(pixel, grad_patches.to(dtype), torch.Size((1, 8, 3, 4)))


def index_put(pixel: Tensor, grad_patches: Tensor, shape: torch.Size) -> Tensor:
    """Compute the same sums by torch's operation, which adds in the order in which its threads run."""
    total = grad_patches.new_zeros(shape[0], *shape[2:], shape[1])
    total.view(-1, shape[1]).index_put_((pixel,), grad_patches, accumulate=True)
    return total.permute(0, 3, 1, 2)


def test_sums_do_not_depend_on_threads() -> None:
    serial = summed(1, sampled_rpn.sum_at)
    assert serial.is_contiguous(memory_format=torch.channels_last)
    for threads in (1, 2, 3, 2, 2):
        assert torch.equal(summed(threads, sampled_rpn.sum_at), serial)
    torch.testing.assert_close(serial.double(), summed(1, index_put, torch.float64), rtol=1e-3, atol=1e-2)


@pytest.mark.skipif(available_cores() < 2, reason="threads must run at the same time")
def test_control_index_put_depends_on_threads() -> None:
    serial = summed(1, index_put)
    assert any(not torch.equal(summed(2, index_put), serial) for _ in range(10))


def test_cached_anchors_equal_torchvisions_and_are_limited() -> None:
    sizes, ratios = ((8,), (16,)), ((0.5, 1.0, 2.0),) * 2
    reference, cached = AnchorGenerator(sizes, ratios), CachedAnchorGenerator(sizes, ratios)
    for side in (*range(2, 2 + 2 * CACHED_SIZES), 5):
        features = [torch.zeros(2, 1, side, side), torch.zeros(2, 1, side // 2, side // 2)]
        image_list = image_list_of([(side * 4, side * 4)] * 2)
        expected, result = reference(image_list, features), cached(image_list, features)
        assert all(torch.equal(actual, other) for actual, other in zip(result, expected, strict=True))
        assert cached(image_list, features)[0] is result[1]
        assert len(cached._cache) <= CACHED_SIZES


def random_resnet(norm: type[FrozenBatchNorm2d] | type[nn.BatchNorm2d]) -> nn.Module:
    torch.manual_seed(0)
    network = resnet18(norm_layer=norm)
    for module in network.modules():
        if isinstance(module, norm):
            for name in ("weight", "running_var", "bias", "running_mean"):
                tensor = getattr(module, name)
                nn.init.uniform_(tensor, 0.5, 1.0) if name in ("weight", "running_var") else nn.init.normal_(tensor)
    assert isinstance(network, nn.Module)
    return network


@pytest.mark.parametrize("norm", [FrozenBatchNorm2d, nn.BatchNorm2d])
def test_folded_norms_have_equal_outputs_and_gradients(norm: Any) -> None:
    reference = random_resnet(norm).eval()
    folded = deepcopy(reference)
    fold_norms(folded)
    assert folded.state_dict().keys() == reference.state_dict().keys()
    copy = deepcopy(folded)
    assert sum(isinstance(module, FoldedConv2d) for module in copy.modules()) == 20
    images = torch.randn(2, 3, 64, 64)
    for network in (reference, folded, copy):
        network(images).square().sum().backward()
    for other in (folded, copy):
        torch.testing.assert_close(other(images), reference(images), rtol=1e-4, atol=1e-4)
        for actual, expected in zip(other.parameters(), reference.parameters(), strict=True):
            assert actual.grad is not None
            assert expected.grad is not None
            assert (actual.grad - expected.grad).abs().max() <= 1e-4 * expected.grad.abs().max()
    names = [name for name, parameter in folded.named_parameters() if parameter.grad is not None]
    assert ("bn1.weight" in names) == (norm is nn.BatchNorm2d), "weights of BatchNorm in eval mode are trainable"
    with torch.no_grad():  # the copy has separate norm layers and uses them
        copy.bn1.weight.mul_(2)
    assert not torch.allclose(copy(images), folded(images), rtol=1e-2)
    torch.testing.assert_close(folded(images), reference(images), rtol=1e-4, atol=1e-4)


def test_batch_norm_in_training_mode_is_not_folded() -> None:
    reference = random_resnet(nn.BatchNorm2d).train()
    folded = deepcopy(reference)
    fold_norms(folded)
    images = torch.randn(2, 3, 64, 64)
    for network in (reference, folded):
        network(images).square().sum().backward()
    for (name, actual), expected in zip(folded.state_dict().items(), reference.state_dict().values(), strict=True):
        assert torch.equal(actual, expected), name
    for actual, expected in zip(folded.parameters(), reference.parameters(), strict=True):
        assert torch.equal(actual.grad, expected.grad)  # type: ignore[arg-type]
    assert not torch.equal(folded.bn1.running_mean, random_resnet(nn.BatchNorm2d).bn1.running_mean)  # type: ignore[arg-type]
