"""What a step leaves out, against torchvision's modules: the same proposals, losses and gradients."""

from __future__ import annotations

import os
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
from detseg.models.ops.fast_ops import MOST, CachedAnchorGenerator
from detseg.models.ops.folded_norm import FoldedConv2d, fold_norms
from detseg.models.ops.sampled_rpn import SampledRPN
from detseg.models.outputs import frame_of

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
    plain = RegionProposalNetwork(AnchorGenerator(sizes, ratios), head, 0.7, 0.3, 40, 0.5, limits, limits, 0.7)
    return plain, SampledRPN.like(deepcopy(plain))


def maps(learn: bool = True) -> list[Tensor]:
    generator = torch.Generator().manual_seed(1)
    return [torch.randn(2, 8, *size, generator=generator).requires_grad_(learn) for size in LEVELS]


def run(rpn: RegionProposalNetwork, given: list[Tensor], boxes: list[Tensor]) -> tuple[list[Tensor], dict[str, Tensor]]:
    torch.manual_seed(3)
    features = {str(number): one for number, one in enumerate(given)}
    found: Any = rpn(frame_of(SIZES_HW), features, [{"boxes": one} for one in boxes])
    return found


@pytest.mark.parametrize("boxes", BOXES.values(), ids=BOXES.keys())
@pytest.mark.parametrize(("depth", "learn"), [(1, True), (1, False), (2, True)])
def test_rpn_equals_torchvisions(boxes: list[Tensor], depth: int, learn: bool) -> None:
    results = []
    for rpn in rpns(depth):
        given = maps(learn)
        proposals, losses = run(rpn, given, boxes)
        sum(losses.values(), torch.zeros(())).backward()
        gradients = [one.grad for one in (*rpn.parameters(), *given)]
        results.append((proposals, losses, gradients))
    theirs, ours = results
    torch.testing.assert_close(ours[:2], theirs[:2], rtol=1e-5, atol=1e-5)
    assert any(gradient is not None and gradient.abs().max() > 1e-3 for gradient in ours[2])
    for mine, other in zip(ours[2], theirs[2], strict=True):
        torch.testing.assert_close(mine, other, rtol=1e-4, atol=1e-6)


def test_rpn_in_eval_mode_and_without_gradients() -> None:
    for evaluate in (True, False):
        with torch.no_grad():
            theirs, ours = (run(rpn.train(not evaluate), maps(), BOXES["some"]) for rpn in rpns())
        assert ours[1] == theirs[1]
        assert all(torch.equal(mine, other) for mine, other in zip(ours[0], theirs[0], strict=True))


def test_control_a_wrong_place_gives_another_gradient(monkeypatch: pytest.MonkeyPatch) -> None:
    def gradient(rpn: RegionProposalNetwork) -> Tensor:
        given = maps()
        sum(run(rpn, given, BOXES["some"])[1].values(), torch.zeros(())).backward()
        assert given[0].grad is not None
        return given[0].grad

    plain, ours = rpns()
    ground_truth = gradient(plain)
    whole = sampled_rpn.AnchorIndex.of

    def mirrored(*args: Any) -> sampled_rpn.AnchorIndex:
        places = whole(*args)
        return sampled_rpn.AnchorIndex(
            places.level, 1 - places.image, places.y, places.x, places.anchor, places.positives
        )

    monkeypatch.setattr(sampled_rpn.AnchorIndex, "of", mirrored)
    assert not torch.allclose(gradient(ours), ground_truth, rtol=1e-2, atol=1e-4)


def sums(threads: int, add: Callable[[Tensor, Tensor, torch.Size], Tensor], dtype: Any = torch.float32) -> Tensor:
    """Half a million rows for a map of twelve pixels, so that every pixel is due some of each thread."""
    generator = torch.Generator().manual_seed(4)
    pixel = torch.randint(12, (500_000,), generator=generator)
    grad_patches = torch.randn(500_000, 8, generator=generator)
    torch.set_num_threads(threads)
    return add(pixel, grad_patches.to(dtype), torch.Size((1, 8, 3, 4)))


def put(pixel: Tensor, grad_patches: Tensor, shape: torch.Size) -> Tensor:
    """The same sums by torch's own operation, which adds as its threads come along."""
    found = grad_patches.new_zeros(shape[0], *shape[2:], shape[1])
    found.view(-1, shape[1]).index_put_((pixel,), grad_patches, accumulate=True)
    return found.permute(0, 3, 1, 2)


def test_sums_do_not_depend_on_threads() -> None:
    serial = sums(1, sampled_rpn.sum_at)
    assert serial.is_contiguous(memory_format=torch.channels_last)
    for threads in (1, 2, 3, 2, 2):
        assert torch.equal(sums(threads, sampled_rpn.sum_at), serial)
    torch.testing.assert_close(serial.double(), sums(1, put, torch.float64), rtol=1e-3, atol=1e-2)


@pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="threads must run at the same time")
def test_control_index_put_depends_on_threads() -> None:
    serial = sums(1, put)
    assert any(not torch.equal(sums(2, put), serial) for _ in range(10))


def test_kept_anchors_are_torchvisions_and_few() -> None:
    sizes, ratios = ((8,), (16,)), ((0.5, 1.0, 2.0),) * 2
    plain, kept = AnchorGenerator(sizes, ratios), CachedAnchorGenerator(sizes, ratios)
    for side in (*range(2, 2 + 2 * MOST), 5):
        features = [torch.zeros(2, 1, side, side), torch.zeros(2, 1, side // 2, side // 2)]
        frame = frame_of([(side * 4, side * 4)] * 2)
        theirs, ours = plain(frame, features), kept(frame, features)
        assert all(torch.equal(mine, other) for mine, other in zip(ours, theirs, strict=True))
        assert kept(frame, features)[0] is ours[1]
        assert len(kept._kept) <= MOST


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
def test_folded_norms_compute_and_learn_the_same(norm: Any) -> None:
    plain = random_resnet(norm).eval()
    folded = deepcopy(plain)
    fold_norms(folded)
    assert folded.state_dict().keys() == plain.state_dict().keys()
    copy = deepcopy(folded)
    assert sum(isinstance(module, FoldedConv2d) for module in copy.modules()) == 20
    images = torch.randn(2, 3, 64, 64)
    for network in (plain, folded, copy):
        network(images).square().sum().backward()
    for other in (folded, copy):
        torch.testing.assert_close(other(images), plain(images), rtol=1e-4, atol=1e-4)
        for mine, theirs in zip(other.parameters(), plain.parameters(), strict=True):
            assert mine.grad is not None
            assert theirs.grad is not None
            assert (mine.grad - theirs.grad).abs().max() <= 1e-4 * theirs.grad.abs().max()
    names = [name for name, parameter in folded.named_parameters() if parameter.grad is not None]
    assert ("bn1.weight" in names) == (norm is nn.BatchNorm2d), "weights of BatchNorm in eval mode learn"
    with torch.no_grad():  # the copy has norm layers of its own, and they are the ones that count
        copy.bn1.weight.mul_(2)
    assert not torch.allclose(copy(images), folded(images), rtol=1e-2)
    torch.testing.assert_close(folded(images), plain(images), rtol=1e-4, atol=1e-4)


def test_batch_norm_that_follows_the_batch_is_not_folded() -> None:
    plain = random_resnet(nn.BatchNorm2d).train()
    folded = deepcopy(plain)
    fold_norms(folded)
    images = torch.randn(2, 3, 64, 64)
    for network in (plain, folded):
        network(images).square().sum().backward()
    for (name, mine), theirs in zip(folded.state_dict().items(), plain.state_dict().values(), strict=True):
        assert torch.equal(mine, theirs), name
    for mine, theirs in zip(folded.parameters(), plain.parameters(), strict=True):
        assert torch.equal(mine.grad, theirs.grad)  # type: ignore[arg-type]
    assert not torch.equal(folded.bn1.running_mean, random_resnet(nn.BatchNorm2d).bn1.running_mean)  # type: ignore[arg-type]
