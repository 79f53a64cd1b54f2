"""Test the gathered RoIAlign against torchvision's: equal values, equal gradients up to rounding, reproducible bits."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor
from torchvision.ops import MultiScaleRoIAlign
from torchvision.ops.poolers import LevelMapper

from detseg.classes import ClassMap
from detseg.models import Detector, build_model, describe
from detseg.models.ops import roi_align
from detseg.models.ops.roi_align import GatheringRoIAlign

IMAGE = (96, 128)
SIZES = [(24, 32), (12, 16), (6, 8)]
STRIDES = [4, 8, 16]


@pytest.fixture(autouse=True)
def _threads() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def pooler(kind: type[MultiScaleRoIAlign], levels: int = 3, bins: int = 7, ratio: int = 2) -> MultiScaleRoIAlign:
    result = kind([str(level) for level in range(levels)], bins, ratio)
    # a small canonical size, so that all levels get RoIs
    result.scales, result.map_levels = [1 / s for s in STRIDES[:levels]], LevelMapper(2, 1 + levels, 40, 3)
    return result


def maps(levels: int = 3, batch: int = 3, channels: int = 5, dtype: torch.dtype = torch.float32) -> list[Tensor]:
    generator = torch.Generator().manual_seed(1)
    return [torch.randn(batch, channels, *size, generator=generator).to(dtype) for size in SIZES[:levels]]


def random_boxes(count: int, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    corner = torch.rand(count, 2, generator=generator) * torch.tensor([110.0, 80.0])
    return torch.cat([corner, corner + torch.rand(count, 2, generator=generator) ** 3 * 120], dim=1)


BOXES = {
    "random": [random_boxes(40, 1), random_boxes(25, 2), random_boxes(1, 3)],
    "partly outside": [random_boxes(20, 4) - 40, random_boxes(20, 5) + 40, random_boxes(9, 6) * 2 - 60],
    "wholly outside": [random_boxes(5, 7) - 500, random_boxes(5, 8) + 500, random_boxes(5, 9)],
    "at the border": [torch.tensor([[-4.0, -4, 132, 100], [-8, -8, 0, 0], [120, 90, 128, 96]])] * 3,
    "no area": [torch.tensor([[5.0, 6, 5, 6], [7, 7, 40, 7], [9, 9, 3, 2], [128, 96, 128, 96]])] * 3,
    "huge": [torch.tensor([[0.0, 0, 128, 96], [-900, -900, 1500, 1500], [-50, 20, 300, 22]])] * 3,
    "some empty": [torch.zeros(0, 4), random_boxes(12, 10), torch.zeros(0, 4)],
    "all empty": [torch.zeros(0, 4)] * 3,
}


def pooled(module: MultiScaleRoIAlign, features: list[Tensor], boxes: list[Tensor]) -> tuple[Tensor, list[Tensor]]:
    """Return the pooled values, and the gradient of each map for a fixed gradient of the output."""
    leaves = [feature_map.detach().clone().requires_grad_() for feature_map in features]
    out = module({str(level): leaf for level, leaf in enumerate(leaves)}, boxes, [IMAGE] * 3)
    gradient = torch.randn(out.shape, generator=torch.Generator().manual_seed(2)).to(out.dtype)
    grads = torch.autograd.grad(out, leaves, gradient, allow_unused=True)
    return out.detach(), [torch.zeros_like(leaf) if g is None else g for leaf, g in zip(leaves, grads, strict=True)]


def error(actual: list[Tensor], expected: list[Tensor]) -> float:
    largest = max(max(float(tensor.abs().max()) for tensor in expected), 1e-30)
    return max(float((a.double() - b).abs().max()) for a, b in zip(actual, expected, strict=True)) / largest


@pytest.mark.parametrize("boxes", BOXES.values(), ids=BOXES.keys())
@pytest.mark.parametrize(("levels", "bins", "ratio"), [(3, 7, 2), (3, 14, 2), (1, 7, 2), (2, 3, 1), (2, 5, 3)])
def test_equals_torchvisions(boxes: list[Tensor], levels: int, bins: int, ratio: int) -> None:
    features = maps(levels)
    actual, actual_gradient = pooled(pooler(GatheringRoIAlign, levels, bins, ratio), features, boxes)
    reference, reference_gradient = pooled(pooler(MultiScaleRoIAlign, levels, bins, ratio), features, boxes)
    # the same in float64, where rounded sampling positions do not affect the comparison
    exact = [tensor.double() for tensor in features], [tensor.double() for tensor in boxes]
    _, expected = pooled(pooler(MultiScaleRoIAlign, levels, bins, ratio), *exact)
    _, actual_exact = pooled(pooler(GatheringRoIAlign, levels, bins, ratio), *exact)
    assert torch.equal(actual, reference)
    assert [tensor.shape for tensor in actual_gradient] == [tensor.shape for tensor in features]
    assert error(actual_exact, expected) < 1e-14
    assert error(actual_gradient, expected) <= max(2 * error(reference_gradient, expected), 1e-6)
    assert error(actual_gradient, [tensor.double() for tensor in reference_gradient]) < 4e-6


@pytest.mark.parametrize("boxes", BOXES.values(), ids=BOXES.keys())
@pytest.mark.parametrize(("levels", "bins", "ratio"), [(3, 7, 2), (1, 14, 2), (2, 5, 3)])
def test_maps_with_channels_last_give_torchvisions_values(
    boxes: list[Tensor], levels: int, bins: int, ratio: int
) -> None:
    last = [tensor.to(memory_format=torch.channels_last) for tensor in maps(levels)]
    assert not any(tensor.is_contiguous() for tensor in last)
    features = {str(level): tensor for level, tensor in enumerate(last)}
    actual, reference = (pooler(kind, levels, bins, ratio)(features, boxes, [IMAGE] * 3) for kind in POOLERS)
    # also in float64, where rounded sampling positions do not affect the comparison
    exact, exact_boxes = (
        {name: tensor.double() for name, tensor in features.items()},
        [tensor.double() for tensor in boxes],
    )
    expected, actual_exact = (
        pooler(kind, levels, bins, ratio)(exact, exact_boxes, [IMAGE] * 3) for kind in (MultiScaleRoIAlign, POOLERS[0])
    )
    assert actual.shape == reference.shape
    if len(actual):
        assert error([actual_exact], [expected]) < 1e-14
        assert error([actual], [reference.double()]) < 4e-6


@pytest.mark.parametrize("size", [(1, 1), (1, 9), (9, 1), (2, 2)])
def test_maps_of_one_pixel(size: tuple[int, int]) -> None:
    features = [torch.randn(3, 4, *size)]
    for boxes in BOXES.values():
        actual, actual_gradient = pooled(pooler(GatheringRoIAlign, 1), features, boxes)
        reference, reference_gradient = pooled(pooler(MultiScaleRoIAlign, 1), features, boxes)
        assert torch.equal(actual, reference)
        assert error(actual_gradient, [tensor.double() for tensor in reference_gradient]) < 1e-6


def test_control_without_border_rules_results_differ(monkeypatch: pytest.MonkeyPatch) -> None:
    original = roi_align.axis_taps

    def no_border(start: Tensor, end: Tensor, bins: int, ratio: int, size: Tensor) -> tuple[Tensor, Tensor]:
        weight, index = original(start + 1000, end + 1000, bins, ratio, size + 2000)
        return weight, torch.minimum((index - 1000).clamp(min=0), size[:, None, None] - 1)

    _, expected = pooled(pooler(MultiScaleRoIAlign), maps(), BOXES["partly outside"])
    _, inner_expected = pooled(pooler(MultiScaleRoIAlign), maps(), [torch.tensor([[20.0, 20, 90, 80]])] * 3)
    monkeypatch.setattr(roi_align, "axis_taps", no_border)
    _, outside = pooled(pooler(GatheringRoIAlign), maps(), BOXES["partly outside"])
    _, inner = pooled(pooler(GatheringRoIAlign), maps(), [torch.tensor([[20.0, 20, 90, 80]])] * 3)
    assert error(outside, [tensor.double() for tensor in expected]) > 1e-2
    assert error(inner, [tensor.double() for tensor in inner_expected]) < 1e-4


def test_bits_do_not_depend_on_run_or_threads() -> None:
    features = [torch.randn(3, 64, 100, 120), *maps(channels=64)[1:]]
    boxes = [random_boxes(300, seed) for seed in range(3)]
    results = []
    for threads in (1, 1, 2, 2, 3):
        torch.set_num_threads(threads)
        results.append(pooled(pooler(GatheringRoIAlign), features, boxes)[1])
    for other in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(results[0], other, strict=True))


def test_gradients_and_maps_of_other_memory_formats() -> None:
    features, boxes = maps(), BOXES["random"]
    expected = pooled(pooler(GatheringRoIAlign), features, boxes)[1]
    last = [tensor.to(memory_format=torch.channels_last) for tensor in features]
    leaves = [tensor.requires_grad_() for tensor in last]
    out = pooler(GatheringRoIAlign)({str(n): tensor for n, tensor in enumerate(leaves)}, boxes, [IMAGE] * 3)
    gradient = torch.randn(out.shape, generator=torch.Generator().manual_seed(2))
    permuted = gradient.permute(3, 1, 0, 2).contiguous().permute(2, 1, 3, 0)
    assert not permuted.is_contiguous()
    gradients = torch.autograd.grad(out, leaves, permuted)
    assert all(torch.equal(a, b) for a, b in zip(gradients, expected, strict=True))
    assert all(tensor.is_contiguous(memory_format=torch.channels_last) for tensor in gradients)


def test_gradcheck() -> None:
    features = [tensor.double().requires_grad_() for tensor in maps(batch=2, channels=2)]
    boxes = [torch.tensor([[3.0, 5, 50, 41], [-9, 60, 140, 130]]).double(), random_boxes(1, 11).double()]
    module = pooler(GatheringRoIAlign, bins=3)
    assert torch.autograd.gradcheck(
        lambda *x: module({str(n): tensor for n, tensor in enumerate(x)}, boxes, [IMAGE] * 2), features
    )


def test_bfloat16_under_autocast() -> None:
    features, boxes = maps(dtype=torch.bfloat16), BOXES["random"]
    with torch.autocast("cpu", torch.bfloat16):
        actual, actual_gradient = pooled(pooler(GatheringRoIAlign), features, boxes)
        reference, reference_gradient = pooled(pooler(MultiScaleRoIAlign), features, boxes)
    assert torch.equal(actual, reference)
    assert all(tensor.dtype == torch.bfloat16 for tensor in actual_gradient)
    assert error(actual_gradient, [tensor.double() for tensor in reference_gradient]) < 2**-8


@pytest.mark.parametrize("kind", [GatheringRoIAlign, MultiScaleRoIAlign])
def test_some_maps_need_no_gradient(kind: type[MultiScaleRoIAlign]) -> None:
    features = maps()
    features[1].requires_grad_()
    out = pooler(kind)({str(n): tensor for n, tensor in enumerate(features)}, BOXES["random"], [IMAGE] * 3)
    out.sum().backward()
    assert features[0].grad is None
    assert features[1].grad is not None


def test_torchvisions_is_used_for_unsupported_inputs(monkeypatch: pytest.MonkeyPatch) -> None:
    features, boxes = maps(), BOXES["random"]
    adaptive, reference = (pooled(pooler(kind, ratio=0), features, boxes)[1] for kind in POOLERS)
    assert all(torch.equal(a, b) for a, b in zip(adaptive, reference, strict=True))

    def refuse(*_: object) -> None:
        raise AssertionError("unexpected call to gather")

    monkeypatch.setattr(roi_align._Pool, "apply", refuse)
    named = {str(n): tensor for n, tensor in enumerate(features)}
    pooler(GatheringRoIAlign)(named, boxes, [IMAGE] * 3)  # no map requires a gradient
    pooled(pooler(GatheringRoIAlign, ratio=0), features, boxes)
    pooled(pooler(GatheringRoIAlign, ratio=roi_align.LARGEST_RATIO + 1), features, boxes)
    with torch.no_grad():
        pooler(GatheringRoIAlign)({n: tensor.requires_grad_() for n, tensor in named.items()}, boxes, [IMAGE] * 3)
    with pytest.raises(AssertionError, match="gather"):
        pooled(pooler(GatheringRoIAlign), features, boxes)


POOLERS = (GatheringRoIAlign, MultiScaleRoIAlign)


def test_scales_are_inferred_as_in_torchvision() -> None:
    features = {str(n): tensor.requires_grad_() for n, tensor in enumerate(maps())} | {"pool": torch.zeros(3, 5, 3, 4)}
    actual, reference = (kind(["0", "1", "2"], 7, 2) for kind in POOLERS)
    assert torch.equal(
        actual(features, BOXES["random"], [IMAGE] * 3), reference(features, BOXES["random"], [IMAGE] * 3)
    )
    assert actual.scales == reference.scales == [0.25, 0.125, 0.0625]


def test_a_training_step_equals_torchvisions() -> None:
    description = describe(
        "maskrcnn_mobilenet_v3_large_fpn_slim",
        ClassMap.from_names(["a", "b"]),
        weights="none",
        image_size=96,
        rois_per_image=16,
        detections_per_image=10,
    )

    def step(*, gathering: bool) -> tuple[dict[str, Tensor], dict[str, Tensor], list[str]]:
        torch.manual_seed(0)
        model = build_model(description)
        assert isinstance(model, Detector)
        for name in ("box_roi_pool", "mask_roi_pool"):
            actual = getattr(model.roi_heads, name)
            assert isinstance(actual, GatheringRoIAlign)
            if not gathering:
                reference = MultiScaleRoIAlign(actual.featmap_names, actual.output_size, actual.sampling_ratio)
                reference.scales, reference.map_levels = actual.scales, actual.map_levels
                setattr(model.roi_heads, name, reference)
        masks = torch.zeros(2, 96, 128, dtype=torch.uint8)
        masks[0, 10:50, 10:60] = masks[1, 30:90, 70:120] = 1
        boxes = torch.tensor([[10.0, 10, 60, 50], [70, 30, 120, 90]])
        targets = [{"boxes": boxes, "labels": torch.tensor([1, 2]), "masks": masks}] * 2
        torch.manual_seed(1)
        losses = model([torch.rand(3, 96, 128) for _ in range(2)], targets)
        torch.stack(list(losses.values())).sum().backward()
        gradients = {name: tensor.grad for name, tensor in model.named_parameters() if tensor.grad is not None}
        return losses, gradients, list(model.state_dict())

    losses, gradients, keys = step(gathering=True)
    reference_losses, reference_gradients, reference_keys = step(gathering=False)
    torch.testing.assert_close(losses, reference_losses)  # the memory format differs: not bit-equal
    assert "loss_mask" in losses
    assert keys == reference_keys
    assert gradients.keys() == reference_gradients.keys()
    # a bias before a norm layer has gradient zero, up to rounding, so all tolerances use the same scale
    largest = max(float(tensor.abs().max()) for tensor in reference_gradients.values())
    for name, gradient in gradients.items():
        torch.testing.assert_close(gradient, reference_gradients[name], rtol=1e-3, atol=1e-5 * largest)
