"""Images with known objects, drawn in memory: the same for both ways of a comparison."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

Target = dict[str, Tensor]


def drawn_samples(
    count: int, size_hw: tuple[int, int], *, instances: int, num_labels: int, seed: int = 0
) -> list[tuple[Tensor, Target]]:
    """Noise with filled ellipses: images uint8 [3, H, W], targets with boxes, labels, masks and image_id."""
    rng = np.random.default_rng(seed)
    height, width = size_hw
    rows, columns = np.mgrid[:height, :width]
    samples = []
    for number in range(count):
        image = rng.integers(90, 166, (height, width, 3), dtype=np.uint8)
        boxes, masks = [], []
        for _ in range(instances):
            half = rng.uniform(0.06, 0.2, 2) * min(size_hw)
            y, x = rng.uniform(half, np.array(size_hw) - half)
            mask = ((rows + 0.5 - y) / half[0]) ** 2 + ((columns + 0.5 - x) / half[1]) ** 2 <= 1
            image[mask] = rng.integers(0, 256, 3, dtype=np.uint8)
            masks.append(mask)
            held_y, held_x = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
            boxes.append([held_x[0], held_y[0], held_x[-1] + 1, held_y[-1] + 1])
        target = {
            "boxes": torch.tensor(np.array(boxes), dtype=torch.float32),
            "labels": torch.from_numpy(rng.integers(1, num_labels + 1, instances)),
            "masks": torch.from_numpy(np.stack(masks).astype(np.uint8)),
            "image_id": torch.tensor(number),
        }
        samples.append((torch.from_numpy(image.transpose(2, 0, 1).copy()), target))
    return samples


class SkilledRpn(nn.Module):
    """An RPN that does its own work, and then proposes what a trained one would: boxes around the objects, and others.

    Random weights propose at random, so the heads would meet hardly any positive and have less to do than in practice.
    """

    def __init__(self, rpn: nn.Module, samples: list[tuple[Tensor, Target]], proposals: int = 300) -> None:
        """``samples``: of which every image's objects are found, by the image's objects or, without, in turn."""
        super().__init__()
        self.rpn = rpn
        rng = np.random.default_rng(7)
        self._found: list[Tensor] = []
        for image, target in samples:
            boxes = target["boxes"].numpy()
            own = boxes[rng.integers(0, len(boxes), proposals)]
            sides = np.tile(own[:, 2:] - own[:, :2], 2)
            spread = np.where(rng.random((proposals, 1)) < 0.4, 0.08, 0.6)
            moved = torch.from_numpy((own + rng.normal(0, 1, own.shape) * spread * sides).astype(np.float32))
            height, width = image.shape[1:]
            moved[:, 0::2].clamp_(0, width)
            moved[:, 1::2].clamp_(0, height)
            self._found.append(moved[(moved[:, 2:] - moved[:, :2] > 4).all(1)])
        self.turn = 0

    def forward(self, images: object, maps: object, targets: object = None) -> tuple[list[Tensor], dict[str, Tensor]]:
        """As torchvision's; the images are taken to come in their order."""
        found, losses = self.rpn(images, maps, targets)
        numbers = [(self.turn + index) % len(self._found) for index in range(len(found))]
        self.turn += len(found)
        return [self._found[number] for number in numbers], losses
