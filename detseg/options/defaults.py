"""Defaults of training that depend on the task, the weights or the machine, each with its reason; and the demo's."""

from __future__ import annotations

from typing import Any

from detseg.options.field import Default

BUNDLED = "bundled"
"""Name of the starting weights that are part of the package."""
FITTING: dict[str, str] = {
    "detect": "fasterrcnn_mobilenet_v3_large_fpn_slim",
    "segment": "maskrcnn_mobilenet_v3_large_fpn_slim",
    "keypoints": "keypointrcnn_mobilenet_v3_large_fpn_slim",
    "classify": "mobilenet_v3_large",
}
"""Task -> the model that the bundled weights fit."""

_ENOUGH_MEMORY, _FEWER_OPERATIONS = "CUDA has enough memory", "on a CPU: about 30 times fewer operations than ResNet-50"
MODEL_ON_CUDA: dict[str, Default] = {
    "segment": Default("maskrcnn_resnet50_fpn", _ENOUGH_MEMORY, "on CUDA"),
    "detect": Default("fasterrcnn_resnet50_fpn", _ENOUGH_MEMORY, "on CUDA"),
    "keypoints": Default("keypointrcnn_resnet50_fpn", _ENOUGH_MEMORY, "on CUDA"),
    "classify": Default("resnet50", _ENOUGH_MEMORY, "on CUDA"),
}
MODEL_ON_CPU: dict[str, Default] = {
    "segment": Default("maskrcnn_mobilenet_v3_large_fpn", _FEWER_OPERATIONS, "on CPU"),
    "detect": Default("fasterrcnn_mobilenet_v3_large_fpn", _FEWER_OPERATIONS, "on CPU"),
    "keypoints": Default(FITTING["keypoints"], "the published keypoint head is too slow on a CPU", "on CPU"),
    "classify": Default("resnet18", "fast on a CPU", "on CPU"),
}
MODEL_FOR_BUNDLED: dict[str, Default] = {
    task: Default(name, "the one that the bundled weights fit", "with --weights bundled")
    for task, name in FITTING.items()
}
COCO = Default("coco", "small data sets need pretrained weights", "if published for the model")
IMAGENET = Default("imagenet", "small data sets need pretrained weights", "else")

FREEZE_NOTHING = Default("none", "there are no pretrained weights to keep", "without pretrained weights")
FREEZE_FOR_PROBE = Default("stem", "after the linear probe", "with --linear-probe-epochs")
FREEZE_BUNDLED_CLASSIFIER = Default(
    "none", "a classifier uses only the first stages of the bundled weights", "for a classifier with bundled weights"
)
FREEZE_ON_CUDA = Default("stem", "as in torchvision", "on CUDA")
FREEZE_ON_CPU = Default("backbone", "halves the time on a CPU", "on CPU")
ENOUGH_FOR_STATISTICS = 16
"""Batch size from which BatchNorm estimates statistics well (Wu and He 2018, "Group Normalization", figure 1)."""

IMAGE_SIZE_ON_CPU = Default(480, "a CPU needs twice the time for 800", "for detectors on CPU")
LARGEST_SIZE_ON_CPU = ((8, 800), (4, 640))
"""GiB of free memory -> largest input size that is chosen for small objects: with 800, an epoch takes twice as long."""
LARGEST_SIZE_ON_CUDA = ((16, 1216), (8, 1024))
"""GiB of GPU memory -> largest input size that is chosen for small objects: 1216 needs 2.3 times the memory of 800."""
ROIS_PER_IMAGE = Default(128, "torchvision's 512 doubles the time and has no benefit")
DETECTIONS_PER_IMAGE, DETECTIONS_PER_OBJECT = 100, 1.5

OVERLAP = Default(0.2, "a fifth: more tiles cost time")
WHOLE_IMAGE = Default(True, "objects can be larger than a tile")

AUGMENT = Default("light", "small data sets overfit without")
EPOCHS = Default(10, "as the published Penn-Fudan run")
EVAL_EPOCHS = Default(1, "")
BATCH_SIZE_ON_CUDA = Default(4, "", "on CUDA")
BATCH_SIZE_ON_CPU = Default(2, "", "on CPU")
CLASSIFIER_BATCH_SIZE_ON_CUDA = Default(32, "", "for classifiers on CUDA")
CLASSIFIER_BATCH_SIZE_ON_CPU = Default(16, "", "for classifiers on CPU")

ADAMW = Default("adamw", "works without tuning the learning rate", "without pretrained weights")
SGD_FOR_DETECTORS = Default("sgd", "usual for R-CNN", "for detectors")
SGD_FOR_CLASSIFIERS = Default("sgd", "as the published ImageNet weights were trained", "for classifiers")
ADAMW_LR = Default(5e-4, "usual for adamw", "for adamw")
LR_PER_IMAGE, MAX_LR = 0.0025, 0.02
ONE_STAGE_LR_PER_IMAGE, MAX_ONE_STAGE_LR = 0.00125, 0.01
BETA2 = Default(0.999, "usual for adamw")
WEIGHT_DECAY = {
    "sgd": Default(5e-4, "usual for sgd", "for sgd"),
    "adamw": Default(0.05, "usual for adamw", "for adamw"),
}
HEAD_LR_MULT = Default(1.0, "as in torchvision")
MAX_WARMUP_STEPS, WARMUP_SHARE = 1000, 10
MILESTONES = (2 / 3, 8 / 9)

DEMO: dict[str, Any] = {
    "model": FITTING["segment"],
    "weights": BUNDLED,
    "freeze": "none",
    "image_size": 240,
    "epochs": 16,
    "minutes": 4.0,
    "eval_epochs": 8,
    "batch_size": 4,
    "optimizer": "adamw",
    "lr": 1e-3,
    "head_lr_mult": 3.0,
    "beta2": 0.98,
    "rois_per_image": 64,
    "mask_rois_per_image": 6,
    "detections_per_image": 30,
    "augment": "aerial",
}
"""Options of the run without arguments. It has fewer epochs where these take longer than the minutes."""
