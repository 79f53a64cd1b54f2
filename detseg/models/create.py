"""Create a model that is ready to train: build it, load starting weights, freeze parts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from detseg.classes import ClassMap, LabelField
from detseg.errors import DataError
from detseg.keypoints import KeypointSchema
from detseg.models import LoadReport, Model, build_model, describe, freeze, load_weights, part_table
from detseg.models.build import architecture_of
from detseg.models.freeze import set_trainable_layers
from detseg.models.timm_backbone import architecture_name
from detseg.models.weights.starting_weights import StartingWeights
from detseg.old_names import accepts_old_keywords
from detseg.options import TrainConfig
from detseg.pixel_values import checked_range
from detseg.short_text import tail, with_classes
from detseg.tiling import Tiling

BOTH_FREEZES = "--freeze and --trainable-layers both select the frozen layers; give one of them"


@dataclass(frozen=True)
class Created:
    """A new model and a report about it.

    Attributes:
        model: ready for an optimizer, in training mode, on the CPU.
        report: which weights were loaded and which are randomly initialized.
        lines: the report and the part table as text for the terminal.
    """

    model: Model
    report: LoadReport
    lines: list[str]

    def __repr__(self) -> str:
        total = sum(parameter.numel() for parameter in self.model.parameters())
        trained = sum(parameter.numel() for parameter in self.model.parameters() if parameter.requires_grad)
        counts = f"{trained / 1e6:.2f} of {total / 1e6:.2f} million parameters trainable"
        description = self.model.description
        model = f"{description.arch}, {description.task}; {with_classes(description.class_map.names)}"
        return f"Created({model}; weights: {tail(self.report.source)}; {counts})"


@accepts_old_keywords
def create_model(
    arch: str,
    classes: ClassMap | Sequence[str],
    *,
    backbone: str | None = None,
    weights: str | StartingWeights | None = None,
    freeze_level: str | None = None,
    trainable_layers: int | None = None,
    norm_eval: bool = False,
    image_size: int | None = None,
    rois_per_image: int = 128,
    mask_rois_per_image: int | None = None,
    detections_per_image: int = 100,
    anchor_sizes: Sequence[int] | None = None,
    keypoints: KeypointSchema | None = None,
    label_fields: Sequence[LabelField] = (),
    class_transfer: Mapping[str, str] | None = None,
    value_range: Sequence[float] | None = None,
    tiling: Tiling | None = None,
) -> Created:
    """Build ``arch`` for ``classes``, load ``weights``, and freeze parts.

    Args:
        arch: a name such as "maskrcnn_resnet50_fpn"; for an unknown name a DataError lists all.
        classes: the user's K classes.
        backbone: such as "timm:convnext_atto", for ``arch`` "fasterrcnn", "maskrcnn", "keypointrcnn" or "classifier".
        weights: "coco", "imagenet", "bundled", "none" or a file (see ``models/weights/load.py``), or these opened;
            None for COCO weights if they are published for this architecture, else ImageNet weights.
        freeze_level: "none", "stem", "backbone", "neck" or "rpn"; exclusive with ``trainable_layers`` (0..5).
        norm_eval: keep the statistics of the backbone's norm layers fixed while their weights are trained.
        image_size: length of the shorter side in pixels; None for the size that the weights were trained with.
        anchor_sizes: one anchor side in pixels for each FPN map (RetinaNet adds two, a third of an octave apart); None
            for the architecture's default.
        keypoints: ``table.keypoint_schema``, for a Keypoint R-CNN; None for other models.
        label_fields: fields of a table whose images have several labels; ``classes`` is then its class map.
        class_transfer: such as ``{"worker": "person", "bolt": ""}``: for each class, the pretrained class whose rows
            of the output layers initialize it ("" for none), if it is not the class of the same name.
        value_range: lowest and highest value of images with more than 8 bits per channel, such as
            ``find_value_range(files).range``; None for that of a checkpoint in ``weights``, else 16 bits.
        tiling: how images are cut into tiles, such as ``Tiling(512)``; None for whole images.
    """
    arch = architecture_name(arch, backbone)
    weights = StartingWeights.open(weights or published_weights(arch), arch)
    class_map = classes if isinstance(classes, ClassMap) else ClassMap.from_names(list(classes))
    description = describe(
        arch,
        class_map,
        weights=weights,
        image_size=image_size,
        rois_per_image=rois_per_image,
        mask_rois_per_image=mask_rois_per_image,
        detections_per_image=detections_per_image,
        anchor_sizes=None if anchor_sizes is None else tuple((size,) for size in anchor_sizes),
        keypoints=keypoints,
        label_fields=tuple(label_fields),
        value_range=checked_range(value_range),
        tiling=tiling,
    )
    model = build_model(description)
    report = load_weights(model, weights, class_transfer=class_transfer)
    freeze_as(model, freeze_level, trainable_layers, norm_eval=norm_eval)
    lines = [*report.lines(), *description.preprocessing.lines(), *(part.line() for part in part_table(model))]
    return Created(model, report, lines)


def with_backbone(config: TrainConfig) -> TrainConfig:
    """Return ``config`` with --model and --backbone merged into one model name.

    Raises:
        DataError: a backbone without a model, or one that this model does not support.
    """
    if config.backbone is None:
        return config
    if config.model is None:
        raise DataError(f"--backbone {config.backbone} without --model; add --model fasterrcnn, maskrcnn or classifier")
    return replace(config, model=architecture_name(config.model, config.backbone), backbone=None)


def freeze_as(model: Model, freeze_level: str | None, trainable_layers: int | None, *, norm_eval: bool = False) -> None:
    """Freeze up to a level, or all but the last backbone layers, or nothing if both are None; set ``norm_eval``.

    Raises:
        DataError: both are given.
    """
    if freeze_level is not None and trainable_layers is not None:
        raise DataError(BOTH_FREEZES)
    model.norm_eval = norm_eval
    if trainable_layers is not None:
        set_trainable_layers(model, trainable_layers)
    else:
        freeze(model, freeze_level or "none")


def published_weights(arch: str) -> str:
    """Return "coco" if COCO weights are published for the architecture, else "imagenet"."""
    return "coco" if architecture_of(arch).coco is not None else "imagenet"
