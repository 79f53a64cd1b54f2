"""From a JPEG file to masks as run lengths in its own pixels, network included."""

from __future__ import annotations

import statistics
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from PIL import Image
from pycocotools import mask as coco_mask
from torch import nn
from torchvision.models import mobilenet_v3_large
from torchvision.models.detection import MaskRCNN
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.backbone_utils import BackboneWithFPN
from torchvision.models.detection.faster_rcnn import FastRCNNPredictor, TwoMLPHead
from torchvision.models.detection.mask_rcnn import MaskRCNNHeads, MaskRCNNPredictor
from torchvision.transforms import functional

from detseg.benchmarks.speed.evaluate import check_masks
from detseg.benchmarks.speed.interleaved_timing import Comparison, in_turn, one_core
from detseg.benchmarks.speed.scenes_set import write_image
from detseg.classes import ClassMap
from detseg.errors import DataError
from detseg.inference.predictor import Predictor
from detseg.inference.results import to_results
from detseg.models import build_model, describe, load_weights
from detseg.models.architectures import MODELS
from detseg.models.backbones import BACKBONES
from detseg.models.description import ModelDescription
from detseg.models.weights.bundled import BUNDLED, BUNDLED_ARCH
from detseg.synthetic.scenes import SHAPE_FAMILIES

Results = list[dict[str, Any]]
NEAR = 0.02
"""Pixels by which a box may differ from the baseline's, where neither resizes the image."""


def compare(device: torch.device) -> list[Comparison]:
    """A photograph, and an image of the network's own size, where nearly all time is the network's."""
    with one_core(), TemporaryDirectory() as folder:
        return [
            predicting(Path(folder), device, (1200, 1600), target=2),
            predicting(Path(folder), device, (480, 640)),
        ]


def predicting(
    folder: Path,
    device: torch.device,
    size_hw: tuple[int, int],
    *,
    size: int = 480,
    detections: int = 100,
    target: float | None = None,
    images: int = 1,
    turns: int = 5,
) -> Comparison:
    """The bundled Mask R-CNN at ``size`` on JPEGs of ``size_hw``, ``detections`` masks each, image by image.

    Raises:
        DataError: the two ways do not agree on an image that neither resizes.
    """
    ours, theirs = Ours(size, detections, device), Baseline(size, detections, device)
    theirs.load(ours)
    same = folder / "same.png"  # without loss: every decoder gives the same pixels
    write_image(same, (size, size * 4 // 3), seed=0)
    check_results(ours(same), theirs(same))
    paths = [folder / f"{size_hw[0]}_{number}.jpg" for number in range(images)]
    for number, path in enumerate(paths):
        write_image(path, size_hw, seed=number)
    found = in_turn(
        f"predict {detections} masks, {size_hw[0]} x {size_hw[1]} at {size}",
        lambda: [ours(path) for path in paths],
        lambda: [theirs(path) for path in paths],
        baseline="PIL, torchvision's Mask R-CNN of the same weights, threshold, pycocotools' encode",
        target=target,
        turns=turns,
    )
    mine, other = (images / statistics.median(seconds) for seconds in (found.ours, found.theirs))
    counts = [len(ours(path)) for path in paths]
    return replace(
        found,
        note=f"{mine:.3g} images per second, the baseline {other:.3g}; {statistics.mean(counts):.0f} masks an image; the "
        "same boxes, and masks but for their edges, where nothing is resized",
    )


class Ours:
    """``detseg predict`` without its files: path in, results out."""

    def __init__(self, size: int, detections: int, device: torch.device) -> None:
        self.description = bundled_description(size, detections)
        model = build_model(self.description)
        load_weights(model, BUNDLED)
        self.predictor = Predictor(model, device)

    def __call__(self, path: Path) -> Results:
        return to_results(self.predictor(path), self.predictor.class_map)


class Baseline:
    """torchvision's own Mask R-CNN, resize and pasting included, and its reference script's way to run lengths."""

    def __init__(self, size: int, detections: int, device: torch.device) -> None:
        self.device = device
        self.model = baseline_mask_rcnn(bundled_description(size, detections)).to(device).eval()

    def load(self, ours: Ours) -> None:
        """Take the same weights."""
        self.model.load_state_dict(ours.predictor.model.state_dict())

    @torch.inference_mode()
    def __call__(self, path: Path) -> Results:
        image = functional.to_tensor(Image.open(path).convert("RGB")).to(self.device)
        found = self.model([image])[0]
        masks = (found["masks"] > 0.5).cpu().numpy()[:, 0]
        results = []
        for box, label, score, mask in zip(
            found["boxes"].tolist(), found["labels"].tolist(), found["scores"].tolist(), masks, strict=True
        ):
            rle = coco_mask.encode(np.asfortranarray(mask, np.uint8))
            rle["counts"] = rle["counts"].decode()
            x1, y1, x2, y2 = box
            results.append({"category_id": label, "bbox": [x1, y1, x2 - x1, y2 - y1], "score": score})
            results[-1]["segmentation"] = rle
        return results


def bundled_description(size: int, detections: int) -> ModelDescription:
    """The bundled model as it was trained, with every detection kept, whatever its score."""
    classes = ClassMap.from_names(SHAPE_FAMILIES)
    described = describe(BUNDLED_ARCH, classes, weights=BUNDLED, image_size=size, detections_per_image=detections)
    return replace(described, score_threshold=0.0)


def baseline_mask_rcnn(description: ModelDescription) -> nn.Module:
    """What ``description`` says, from torchvision's parts alone; only for the bundled architecture."""
    architecture = MODELS[description.arch]
    spec, neck, head = BACKBONES[architecture.backbone], architecture.neck_channels, architecture.head_channels
    num_classes = description.class_map.num_classes
    norm = nn.BatchNorm2d if description.norm == "batch" else None
    backbone = BackboneWithFPN(
        mobilenet_v3_large(weights=None, norm_layer=norm).features,
        {name: str(level) for level, name in enumerate(spec.levels)},
        list(spec.levels.values()),
        out_channels=neck,
    )
    sizes = description.anchor_sizes or architecture.anchor_sizes
    return MaskRCNN(
        backbone,
        min_size=description.preprocessing.min_size,
        max_size=description.preprocessing.max_size,
        image_mean=list(description.preprocessing.mean),
        image_std=list(description.preprocessing.std),
        rpn_anchor_generator=AnchorGenerator(sizes, (description.anchor_ratios,) * len(sizes)),
        rpn_pre_nms_top_n_test=description.rpn_pre_nms_top_n[1],
        rpn_post_nms_top_n_test=description.rpn_post_nms_top_n[1],
        rpn_score_thresh=description.rpn_score_threshold,
        box_head=TwoMLPHead(neck * 7 * 7, head),
        box_predictor=FastRCNNPredictor(head, num_classes),
        box_score_thresh=description.score_threshold,
        box_nms_thresh=description.nms_threshold,
        box_detections_per_img=description.detections_per_image,
        mask_head=MaskRCNNHeads(neck, [neck] * 4, 1),
        mask_predictor=MaskRCNNPredictor(neck, neck, num_classes),
    )


def check_results(ours: Results, theirs: Results) -> None:
    """DataError unless both found the same boxes and masks of the same classes; equal scores may change places."""
    if len(ours) != len(theirs):
        raise DataError(
            f"{len(ours)} detections of ours, {len(theirs)} of the baseline's; the comparison is not of equal work"
        )
    boxes = np.array([one["bbox"] for one in theirs]).reshape(-1, 4)
    labels = np.array([one["category_id"] for one in theirs])
    pairs = []
    for one in ours:
        away = np.abs(boxes - one["bbox"]).max(axis=1) + np.where(labels == one["category_id"], 0, np.inf)
        nearest = int(away.argmin())
        if not away[nearest] <= NEAR:
            raise DataError(f"the box {one['bbox']} of class {one['category_id']} is none of the baseline's")
        pairs.append((one["segmentation"], theirs[nearest]["segmentation"]))
    check_masks([mine for mine, _ in pairs], [other for _, other in pairs])
