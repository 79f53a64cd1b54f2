"""Train torchvision's detector in a typical torchvision loop: the baseline for the benchmarks."""

from __future__ import annotations

import time
from typing import Any

import torch
from torch.utils.data import DataLoader
from torchvision.models.detection import FasterRCNN
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.backbone_utils import mobilenet_backbone, resnet_fpn_backbone
from torchvision.ops import MultiScaleRoIAlign

from detseg.annotations import AnnotationTable
from detseg.boxes import xywh_to_xyxy
from detseg.datasets import collate_fn
from detseg.engine.evaluate import Metrics, evaluate
from detseg.images import decode_image
from detseg.metrics import CocoEvaluator
from detseg.models import read_state_dict
from detseg.pixel_values import Range
from detseg.runtime.reporter import Reporter, terminal


class BaselineDataset(torch.utils.data.Dataset[Any]):
    """Float images of the original size, boxes and labels; flipped horizontally with probability 0.5 in training."""

    def __init__(self, table: AnnotationTable, train: bool, value_range: Range | None = None) -> None:
        self.table, self.train, self.value_range = table, train, value_range

    def __len__(self) -> int:
        return len(self.table)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        record = self.table[index]
        pixels = decode_image(record.path, value_range=self.value_range)
        image = torch.from_numpy(pixels).permute(2, 0, 1).float() / 255
        trained = ~(record.iscrowd | record.ignore)
        boxes = torch.from_numpy(xywh_to_xyxy(record.boxes_xywh[trained])).float().reshape(-1, 4)
        if self.train and torch.rand(()) < 0.5:
            image = image.flip(-1)
            boxes[:, [0, 2]] = image.shape[-1] - boxes[:, [2, 0]]
        labels = torch.from_numpy(record.labels[trained])
        return image, {"boxes": boxes, "labels": labels, "image_id": torch.tensor(record.image_id)}


def baseline_detector(backbone_name: str, weights: str, num_classes: int, image_size: int) -> torch.nn.Module:
    """Build Faster R-CNN with torchvision's builders and defaults, except 128 RoIs per image, as needed on a CPU.

    ``weights``: a classification state dict of ``backbone_name`` ("mobilenet_v2", "resnet18", ...), or "none".
    """
    if backbone_name.startswith("resnet"):
        backbone = resnet_fpn_backbone(backbone_name=backbone_name, weights=None, trainable_layers=3)
    else:
        backbone = mobilenet_backbone(backbone_name=backbone_name, weights=None, fpn=True, trainable_layers=3)
    if weights != "none":
        state = {name.removeprefix("features."): tensor.float() for name, tensor in read_state_dict(weights).items()}
        backbone.body.load_state_dict({name: state[name] for name in backbone.body.state_dict()})
    maps = len(backbone.fpn.inner_blocks) + 1  # and one more by pooling
    five_maps = maps == 5
    sizes = ((32,), (64,), (128,), (256,), (512,)) if five_maps else ((32, 64, 128, 256, 512),) * maps
    return FasterRCNN(
        backbone,
        num_classes,
        min_size=image_size,
        max_size=round(image_size * 1333 / 800),
        rpn_anchor_generator=AnchorGenerator(sizes, ((0.5, 1.0, 2.0),) * maps),
        box_roi_pool=MultiScaleRoIAlign([str(level) for level in range(maps - 1)], 7, 2),
        box_batch_size_per_image=128,
    )


def train_baseline(
    train: AnnotationTable,
    val: AnnotationTable,
    *,
    backbone_name: str,
    weights: str,
    image_size: int,
    epochs: int,
    batch_size: int,
    seed: int,
    device: torch.device,
    lr_per_image: float = 0.004,
    value_range: Range | None = None,
    reporter: Reporter | None = None,
) -> tuple[Metrics, float]:
    """Train with SGD (momentum 0.9, weight decay 1e-4) and a one-cycle schedule with warm-up. Returns the metrics of
    the last epoch and the seconds of training."""
    reporter = reporter or terminal()
    torch.manual_seed(seed)
    model = baseline_detector(backbone_name, weights, train.class_map.num_classes, image_size).to(device)
    loader = DataLoader(BaselineDataset(train, True, value_range), batch_size, shuffle=True, collate_fn=collate_fn)
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    lr = lr_per_image * batch_size
    optimizer = torch.optim.SGD(parameters, lr=lr, momentum=0.9, weight_decay=1e-4)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, lr, total_steps=epochs * len(loader), pct_start=0.1)
    model.train()
    start = time.perf_counter()
    for epoch in range(epochs):
        for images, targets in reporter.progress(loader, f"baseline epoch {epoch + 1}/{epochs}", total=len(loader)):
            moved = [{key: value.to(device) for key, value in target.items()} for target in targets]
            loss = sum(model([image.to(device) for image in images], moved).values())
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
    seconds = time.perf_counter() - start
    val_loader = DataLoader(BaselineDataset(val, False, value_range), batch_size, collate_fn=collate_fn)
    evaluator = CocoEvaluator(val, iou_types=("bbox",))
    return evaluate(model, val_loader, device, evaluator=evaluator, reporter=reporter), seconds
