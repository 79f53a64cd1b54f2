"""Measure a network module by module: shapes, parameters, memory, multiply-adds, without computing any value."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from detseg.models.base import FreezableModel
from detseg.models.classifier import Classifier
from detseg.models.detector import Detector
from detseg.models.padding import FeatureMaps

Shape = tuple[int, ...]


@dataclass
class ModuleSize:
    """One module with everything in it.

    Attributes:
        name: as in the state dict; "" for the whole network.
        kind: class of the module.
        parameters: number of parameter elements.
        trainable: number of trainable ones.
        weight_bytes: memory of parameters and buffers.
        shapes: shapes of its output tensors for one image; several for feature maps, none if it has no forward pass.
        activation_bytes: memory of the outputs of the innermost modules in it, which training keeps.
        multiply_adds: for one image, as torch's counter has them (half of its FLOPs).
    """

    name: str
    kind: str
    parameters: int
    trainable: int
    weight_bytes: int
    shapes: list[Shape] = field(default_factory=list)
    activation_bytes: int = 0
    multiply_adds: int = 0

    @property
    def state(self) -> str:
        """ "trainable", "partly trainable" or "frozen"; "" without parameters."""
        if not self.parameters:
            return ""
        return "trainable" if self.trainable == self.parameters else "partly trainable" if self.trainable else "frozen"


def measure(model: FreezableModel, size_hw: tuple[int, int]) -> list[ModuleSize]:
    """Measure all modules for one image in eval mode, in the order of the network, the whole first.

    The heads of an R-CNN are measured for the most proposals and detections of an image that its description allows.

    Args:
        model: is not changed.
        size_hw: height and width of the image.
    """
    sizes = {name: _size_of(name, module) for name, module in model.named_modules()}
    network: Any = copy.deepcopy(model).to("meta").eval()  # has shapes, but no values
    counter = FlopCounterMode(display=False)
    with torch.no_grad(), counter, _recorded(network, sizes, counter):
        _forward(network, torch.empty((3, *size_hw), device="meta"))
    children: dict[str, list[ModuleSize]] = {name: [] for name in sizes}
    for name in list(sizes)[1:]:
        children[name.rpartition(".")[0]].append(sizes[name])
    for name in sorted(sizes, key=lambda name: -len(name.split("."))):  # the innermost first, the whole last
        inner = children[name]
        sizes[name].activation_bytes += sum(child.activation_bytes for child in inner) if name else 0
        if not sizes[name].shapes:  # its children were called one by one
            sizes[name].multiply_adds = sum(child.multiply_adds for child in inner)
    sizes[""].activation_bytes = sum(child.activation_bytes for child in children[""])
    sizes[""].multiply_adds = counter.get_total_flops() // 2
    return list(sizes.values())


def _forward(model: Any, image: Tensor) -> None:
    if isinstance(model, Classifier):
        model.head(model._pooled(model.normalise(image)[None]))
        return
    maps = model._neck(model._backbone(model._batch([image])))
    if not isinstance(model, Detector):
        model.head(list(maps.values()))
        return
    description, heads = model.description, model.roi_heads
    model.rpn.head(list(maps.values()))
    heads.box_predictor(heads.box_head(_pooled(maps, heads.box_roi_pool, description.rpn_post_nms_top_n[1])))
    for kind in ("mask", "keypoint"):
        if getattr(heads, f"has_{kind}")():
            pooled = _pooled(maps, getattr(heads, f"{kind}_roi_pool"), description.detections_per_image)
            getattr(heads, f"{kind}_predictor")(getattr(heads, f"{kind}_head")(pooled))


def _pooled(maps: FeatureMaps, pool: Any, boxes: int) -> Tensor:
    """Return the features of ``boxes`` boxes, as RoIAlign returns them."""
    channels = next(iter(maps.values())).shape[1]
    return torch.empty((boxes, channels, *pool.output_size), device="meta")


@contextmanager
def _recorded(network: nn.Module, sizes: dict[str, ModuleSize], counter: FlopCounterMode) -> Iterator[None]:
    """In the block every module that runs adds its output and its multiply-adds to its size."""
    starts: dict[str, int] = {}
    with ExitStack() as stack:
        for name, module in network.named_modules():

            def begin(_module: nn.Module, _inputs: Any, name: str = name) -> None:
                starts[name] = counter.get_total_flops()

            def end(module: nn.Module, _inputs: Any, output: Any, name: str = name) -> None:
                tensors = list(_tensors(output))
                size = sizes[name]
                size.multiply_adds += (counter.get_total_flops() - starts[name]) // 2
                size.shapes = size.shapes or [tuple(tensor.shape) for tensor in tensors]
                if not any(module.children()):
                    size.activation_bytes += sum(tensor.nbytes for tensor in tensors)

            stack.callback(module.register_forward_pre_hook(begin).remove)
            stack.callback(module.register_forward_hook(end).remove)
        yield


def _tensors(output: Any) -> Iterator[Tensor]:
    if isinstance(output, Tensor):
        yield output
    elif isinstance(output, dict):
        for value in output.values():
            yield from _tensors(value)
    elif isinstance(output, (list, tuple)):
        for value in output:
            yield from _tensors(value)


def _size_of(name: str, module: nn.Module) -> ModuleSize:
    parameters = list(module.parameters())
    return ModuleSize(
        name,
        type(module).__name__,
        sum(parameter.numel() for parameter in parameters),
        sum(parameter.numel() for parameter in parameters if parameter.requires_grad),
        sum(tensor.nbytes for tensor in (*parameters, *module.buffers())),
    )
