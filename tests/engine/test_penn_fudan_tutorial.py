"""The published Penn-Fudan fine-tuning script, with only its import lines changed, on rendered images."""

from __future__ import annotations

import os
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
import torchvision
from torchvision import tv_tensors
from torchvision.io import read_image
from torchvision.models.detection.faster_rcnn import FastRCNNPredictor
from torchvision.models.detection.mask_rcnn import MaskRCNNPredictor
from torchvision.ops.boxes import masks_to_boxes
from torchvision.transforms import v2 as T
from torchvision.transforms.v2 import functional as F

from detseg import datasets as utils
from detseg.engine import evaluate, train_one_epoch

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning")


def render_penn_fudan(root: Path, images: int) -> None:
    """Images of ellipses in PNGImages, their instance ids in PedMasks: the layout of the Penn-Fudan set."""
    (root / "PNGImages").mkdir(parents=True)
    (root / "PedMasks").mkdir()
    for index in range(images):
        rng = np.random.default_rng(index)
        image = rng.integers(90, 110, (96, 128, 3), dtype=np.uint8)
        mask = np.zeros((96, 128), np.uint8)
        for instance in range(1, 3):
            center = (int(rng.integers(20, 44)) + 64 * (instance - 1), int(rng.integers(30, 66)))
            axes = (int(rng.integers(8, 14)), int(rng.integers(16, 26)))
            cv2.ellipse(image, center, axes, 0, 0, 360, (220, 40, 40), -1)
            cv2.ellipse(mask, center, axes, 0, 0, 360, instance, -1)
        cv2.imwrite(str(root / "PNGImages" / f"FudanPed{index:05d}.png"), image)
        cv2.imwrite(str(root / "PedMasks" / f"FudanPed{index:05d}_mask.png"), mask)


class PennFudanDataset(torch.utils.data.Dataset):  # type: ignore[type-arg]
    """As published."""

    def __init__(self, root, transforms):  # type: ignore[no-untyped-def]
        self.root = root
        self.transforms = transforms
        self.imgs = sorted(os.listdir(os.path.join(root, "PNGImages")))  # noqa: PTH118, PTH208
        self.masks = sorted(os.listdir(os.path.join(root, "PedMasks")))  # noqa: PTH118, PTH208

    def __getitem__(self, idx):  # type: ignore[no-untyped-def]
        img = read_image(os.path.join(self.root, "PNGImages", self.imgs[idx]))  # noqa: PTH118
        mask = read_image(os.path.join(self.root, "PedMasks", self.masks[idx]))  # noqa: PTH118
        obj_ids = torch.unique(mask)[1:]
        num_objs = len(obj_ids)
        masks = (mask == obj_ids[:, None, None]).to(dtype=torch.uint8)
        boxes = masks_to_boxes(masks)
        labels = torch.ones((num_objs,), dtype=torch.int64)
        image_id = idx
        area = (boxes[:, 3] - boxes[:, 1]) * (boxes[:, 2] - boxes[:, 0])
        iscrowd = torch.zeros((num_objs,), dtype=torch.int64)
        img = tv_tensors.Image(img)
        target = {}
        target["boxes"] = tv_tensors.BoundingBoxes(boxes, format="XYXY", canvas_size=F.get_size(img))
        target["masks"] = tv_tensors.Mask(masks)
        target["labels"] = labels
        target["image_id"] = image_id
        target["area"] = area
        target["iscrowd"] = iscrowd
        if self.transforms is not None:
            img, target = self.transforms(img, target)
        return img, target

    def __len__(self) -> int:
        return len(self.imgs)


def get_transform(train: bool) -> T.Compose:
    transforms = []
    if train:
        transforms.append(T.RandomHorizontalFlip(0.5))
    transforms.append(T.ToDtype(torch.float, scale=True))
    transforms.append(T.ToPureTensor())
    return T.Compose(transforms)


def get_model_instance_segmentation(num_classes: int) -> torch.nn.Module:
    # no published weights, because tests run offline; small inputs keep the test short
    model = torchvision.models.detection.maskrcnn_resnet50_fpn(
        weights=None, weights_backbone=None, min_size=96, max_size=128, box_batch_size_per_image=32
    )
    in_features = model.roi_heads.box_predictor.cls_score.in_features
    model.roi_heads.box_predictor = FastRCNNPredictor(in_features, num_classes)
    in_features_mask = model.roi_heads.mask_predictor.conv5_mask.in_channels
    model.roi_heads.mask_predictor = MaskRCNNPredictor(in_features_mask, 256, num_classes)
    return model


def test_the_published_script_runs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    render_penn_fudan(tmp_path, images=6)
    torch.manual_seed(0)

    device = torch.device("cpu")
    num_classes = 2
    dataset = PennFudanDataset(tmp_path, get_transform(train=True))
    dataset_test = PennFudanDataset(tmp_path, get_transform(train=False))
    indices = torch.randperm(len(dataset)).tolist()
    dataset = torch.utils.data.Subset(dataset, indices[:-2])
    dataset_test = torch.utils.data.Subset(dataset_test, indices[-2:])
    data_loader = torch.utils.data.DataLoader(dataset, batch_size=2, shuffle=True, collate_fn=utils.collate_fn)
    data_loader_test = torch.utils.data.DataLoader(
        dataset_test, batch_size=1, shuffle=False, collate_fn=utils.collate_fn
    )
    model = get_model_instance_segmentation(num_classes)
    model.to(device)
    params = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.SGD(params, lr=0.005, momentum=0.9, weight_decay=0.0005)
    lr_scheduler = torch.optim.lr_scheduler.StepLR(optimizer, step_size=3, gamma=0.1)
    num_epochs = 1
    for epoch in range(num_epochs):
        train_one_epoch(model, optimizer, data_loader, device, epoch, print_freq=10)
        lr_scheduler.step()
        metrics = evaluate(model, data_loader_test, device=device)

    printed = capsys.readouterr().out
    assert "epoch 1 [1/2]" in printed
    assert "loss_mask" in printed
    numbers = metrics.to_dict()
    assert {"bbox", "segm"} <= set(numbers)
    assert all(0.0 <= numbers[kind]["AP"] <= 1.0 for kind in ("bbox", "segm"))
