"""Small models and batches for the tests of the networks."""

from __future__ import annotations

from collections.abc import Iterator
from copy import deepcopy
from dataclasses import replace
from functools import lru_cache
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from detseg.classes import ClassMap
from detseg.models import Classifier, Detector, ModelDescription, build_model, describe

CLASSES = ClassMap(("ant", "bee", "cat"), (7, 3, 90))


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    yield
    torch.set_num_threads(threads)


class Small:
    """Build small models and batches; a fixture, so that test files do not import each other."""

    classes = CLASSES

    @staticmethod
    def detector(arch: str = "fasterrcnn_resnet18_fpn", **changes: Any) -> Detector:
        """A random detector with few proposals and suitable norm statistics. ``changes``: to its description."""
        keypoints = changes.get("keypoints")
        description = replace(
            describe(arch, CLASSES, weights="none", rois_per_image=16, detections_per_image=5, keypoints=keypoints),
            rpn_pre_nms_top_n=(50, 40),
            rpn_post_nms_top_n=(30, 20),
            **changes,
        )
        return deepcopy(build_detector(description))

    @staticmethod
    def classifier(arch: str = "resnet18", **changes: Any) -> Classifier:
        torch.manual_seed(0)
        model = build_model(replace(describe(arch, CLASSES, weights="none", image_size=64), **changes))
        assert isinstance(model, Classifier)
        return model

    @staticmethod
    def batch(
        sizes_hw: list[tuple[int, int]], instances: list[int] | None = None
    ) -> tuple[list[Tensor], list[dict[str, Tensor]]]:
        """Random uint8 images and targets with ``instances`` boxes and masks each (default: 1, 2, 3, ...)."""
        generator = torch.Generator().manual_seed(1)
        images, targets = [], []
        for index, (height, width) in enumerate(sizes_hw):
            count = index + 1 if instances is None else instances[index]
            images.append(torch.randint(0, 256, (3, height, width), dtype=torch.uint8, generator=generator))
            corner = torch.rand(count, 2, generator=generator) * torch.tensor([width, height]) * 0.4
            size = (0.2 + 0.3 * torch.rand(count, 2, generator=generator)) * torch.tensor([width, height])
            boxes = torch.cat([corner, corner + size], dim=1)
            masks = torch.zeros(count, height, width, dtype=torch.uint8)
            for mask, (x1, y1, x2, y2) in zip(masks, boxes.round().int().tolist(), strict=True):
                mask[y1:y2, x1:x2] = 1
            targets.append(
                {
                    "boxes": boxes,
                    "labels": torch.randint(1, 4, (count,), generator=generator),
                    "masks": masks,
                    "image_id": torch.tensor(100 + index),
                }
            )
        return images, targets


@lru_cache(maxsize=4)
def build_detector(description: ModelDescription) -> Detector:
    torch.manual_seed(0)
    model = build_model(description)
    assert isinstance(model, Detector)
    settle(model.backbone, torch.rand(2, 3, 128, 128))
    with torch.no_grad():  # random convolutions amplify their input; trained ones do not
        for layer in model.backbone.fpn.layer_blocks:
            layer[0].weight.mul_(0.1)
    return model


def settle(network: nn.Module, batch: Tensor) -> None:
    """Set the norm statistics to those of one batch, so that features are of order one."""
    norms = [module for module in network.modules() if isinstance(module, nn.BatchNorm2d)]
    for norm in norms:
        norm.momentum = 1.0
    with torch.no_grad():
        network(batch)
    for norm in norms:
        norm.momentum = 0.1


@pytest.fixture
def small() -> type[Small]:
    return Small
