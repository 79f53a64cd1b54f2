"""Draw images with known objects in memory: the same for both implementations of a comparison."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

Target = dict[str, Tensor]


def drawn_samples(
    count: int, size_hw: tuple[int, int], *, instances: int, num_labels: int, seed: int = 0
) -> list[tuple[Tensor, Target]]:
    """Draw filled ellipses on noise: images uint8 [3, H, W], targets with boxes, labels, masks and image_id."""
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
            mask_rows, mask_columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
            boxes.append([mask_columns[0], mask_rows[0], mask_columns[-1] + 1, mask_rows[-1] + 1])
        target = {
            "boxes": torch.tensor(np.array(boxes), dtype=torch.float32),
            "labels": torch.from_numpy(rng.integers(1, num_labels + 1, instances)),
            "masks": torch.from_numpy(np.stack(masks).astype(np.uint8)),
            "image_id": torch.tensor(number),
        }
        samples.append((torch.from_numpy(image.transpose(2, 0, 1).copy()), target))
    return samples


class SimulatedRpn(nn.Module):
    """Run an RPN, but return the proposals of a trained one instead: boxes around the objects, and others.

    Randomly initialized RPNs have random proposals, so the heads would get almost no positives and less work than in
    practice.
    """

    def __init__(self, rpn: nn.Module, samples: list[tuple[Tensor, Target]], proposals: int = 300) -> None:
        """Generate ``proposals`` boxes around the objects of each of ``samples``, which must be used in this order."""
        super().__init__()
        self.rpn = rpn
        rng = np.random.default_rng(7)
        self._proposals: list[Tensor] = []
        for image, target in samples:
            boxes = target["boxes"].numpy()
            objects = boxes[rng.integers(0, len(boxes), proposals)]
            sides = np.tile(objects[:, 2:] - objects[:, :2], 2)
            spread = np.where(rng.random((proposals, 1)) < 0.4, 0.08, 0.6)
            moved = torch.from_numpy((objects + rng.normal(0, 1, objects.shape) * spread * sides).astype(np.float32))
            height, width = image.shape[1:]
            moved[:, 0::2].clamp_(0, width)
            moved[:, 1::2].clamp_(0, height)
            self._proposals.append(moved[(moved[:, 2:] - moved[:, :2] > 4).all(1)])
        self.next_sample = 0

    def forward(self, images: object, maps: object, targets: object = None) -> tuple[list[Tensor], dict[str, Tensor]]:
        """As in torchvision; the images must be in the order of the samples."""
        proposals, losses = self.rpn(images, maps, targets)
        indices = [(self.next_sample + index) % len(self._proposals) for index in range(len(proposals))]
        self.next_sample += len(proposals)
        return [self._proposals[index] for index in indices], losses
