"""Compare the speed of prediction: from a JPEG file to masks as run-length encoding, including the network."""

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
from detseg.benchmarks.speed.interleaved_timing import Comparison, one_core, time_interleaved
from detseg.benchmarks.speed.predict_folder import predicting_folders
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
MAX_BOX_DIFFERENCE = 0.02
"""Maximum difference of a box from the baseline's in pixels, if neither resizes the image."""


def compare(device: torch.device) -> list[Comparison]:
    """Compare on a photograph, and on an image of the network's size, where the network takes nearly all the time; and
    on a folder of large photographs."""
    with TemporaryDirectory() as folder:
        with one_core():
            images = [
                predicting(Path(folder), device, (1200, 1600), target=2),
                predicting(Path(folder), device, (480, 640)),
            ]
        return [*images, *predicting_folders(Path(folder), device)]


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
    """Compare the bundled Mask R-CNN at ``size`` on JPEGs of ``size_hw``, ``detections`` masks each, image by image.

    Raises:
        DataError: the two implementations do not agree on an image that neither resizes.
    """
    ours, theirs = Ours(size, detections, device), Baseline(size, detections, device)
    theirs.load(ours)
    same = folder / "same.png"  # lossless: every decoder returns the same pixels
    write_image(same, (size, size * 4 // 3), seed=0)
    check_results(ours(same), theirs(same))
    paths = [folder / f"{size_hw[0]}_{number}.jpg" for number in range(images)]
    for number, path in enumerate(paths):
        write_image(path, size_hw, seed=number)
    comparison = time_interleaved(
        f"predict {detections} masks, {size_hw[0]} x {size_hw[1]} at {size}",
        lambda: [ours(path) for path in paths],
        lambda: [theirs(path) for path in paths],
        baseline="PIL, torchvision's Mask R-CNN with the same weights, threshold, pycocotools' encode",
        target=target,
        turns=turns,
    )
    ours_speed, theirs_speed = (images / statistics.median(seconds) for seconds in (comparison.ours, comparison.theirs))
    counts = [len(ours(path)) for path in paths]
    return replace(
        comparison,
        note=f"{ours_speed:.3g} images per second, the baseline {theirs_speed:.3g}; "
        f"{statistics.mean(counts):.0f} masks per image; without resizing, boxes are equal, and masks except at edges",
    )


class Ours:
    """``detseg predict`` without output files: image path to results."""

    def __init__(self, size: int, detections: int, device: torch.device) -> None:
        self.description = bundled_description(size, detections)
        model = build_model(self.description)
        load_weights(model, BUNDLED)
        self.predictor = Predictor(model, device)

    def __call__(self, path: Path) -> Results:
        return to_results(self.predictor(path), self.predictor.class_map)


class Baseline:
    """torchvision's Mask R-CNN including resizing and pasting, and run-length encoding as in its reference script."""

    def __init__(self, size: int, detections: int, device: torch.device) -> None:
        self.device = device
        self.model = baseline_mask_rcnn(bundled_description(size, detections)).to(device).eval()

    def load(self, ours: Ours) -> None:
        """Load the same weights."""
        self.model.load_state_dict(ours.predictor.model.state_dict())

    @torch.inference_mode()
    def __call__(self, path: Path) -> Results:
        image = functional.to_tensor(Image.open(path).convert("RGB")).to(self.device)
        prediction = self.model([image])[0]
        masks = (prediction["masks"] > 0.5).cpu().numpy()[:, 0]
        results = []
        for box, label, score, mask in zip(
            prediction["boxes"].tolist(),
            prediction["labels"].tolist(),
            prediction["scores"].tolist(),
            masks,
            strict=True,
        ):
            rle = coco_mask.encode(np.asfortranarray(mask, np.uint8))
            rle["counts"] = rle["counts"].decode()
            x1, y1, x2, y2 = box
            results.append({"category_id": label, "bbox": [x1, y1, x2 - x1, y2 - y1], "score": score})
            results[-1]["segmentation"] = rle
        return results


def bundled_description(size: int, detections: int) -> ModelDescription:
    """Describe the bundled model as trained, but with a score threshold of 0."""
    classes = ClassMap.from_names(SHAPE_FAMILIES)
    description = describe(BUNDLED_ARCH, classes, weights=BUNDLED, image_size=size, detections_per_image=detections)
    return replace(description, score_threshold=0.0)


def baseline_mask_rcnn(description: ModelDescription) -> nn.Module:
    """Build the model of ``description`` from torchvision's parts only; for the bundled architecture."""
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
    """Raise DataError unless both have the same boxes and masks of the same classes; equal scores may be reordered."""
    if len(ours) != len(theirs):
        raise DataError(
            f"{len(ours)} detections in detseg, {len(theirs)} in the baseline; the comparison is not of equal work"
        )
    boxes = np.array([result["bbox"] for result in theirs]).reshape(-1, 4)
    labels = np.array([result["category_id"] for result in theirs])
    pairs = []
    for result in ours:
        bbox, category_id = result["bbox"], result["category_id"]
        differences = np.abs(boxes - bbox).max(axis=1) + np.where(labels == category_id, 0, np.inf)
        nearest = int(differences.argmin())
        if not differences[nearest] <= MAX_BOX_DIFFERENCE:
            raise DataError(f"the box {bbox} of class {category_id} is not in the results of the baseline")
        pairs.append((result["segmentation"], theirs[nearest]["segmentation"]))
    check_masks([mask for mask, _ in pairs], [other for _, other in pairs])
