"""Load starting weights: load all matching tensors, list the others, and refuse files of another network."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from detseg.errors import DataError
from detseg.keypoints import COCO_NAMES
from detseg.models.architecture_lookup import architecture_of
from detseg.models.base import FreezableModel
from detseg.models.one_stage_build import retinanet_name, ssd_name
from detseg.models.timm_backbone import PREFIX, backbone_spec
from detseg.models.weights.bundled import stages_to_load
from detseg.models.weights.class_transfer import ClassMatch, head_lines, transfer_class_weights
from detseg.models.weights.source_classes import SourceClasses
from detseg.models.weights.starting_weights import StartingWeights
from detseg.models.weights.timm_weights import timm_names

KEYPOINT_PREDICTOR = "roi_heads.keypoint_predictor."
State = dict[str, Tensor]

HEADS = ("rpn", "box head", "mask head", "keypoint head", "head")
"""Parts whose shapes depend on the user's classes and anchors; in other parts a different shape is an error."""

COUNTER = "num_batches_tracked"
"""BatchNorm's counter, which frozen norm layers do not have and this project does not use."""

# Names in files from before torchvision 0.13
_OLD_NAMES = (
    (re.compile(r"^(backbone\.fpn\.(?:inner|layer)_blocks\.\d+)\.(weight|bias)$"), r"\1.0.\2"),
    (re.compile(r"^(rpn\.head\.conv)\.(weight|bias)$"), r"\1.0.0.\2"),
)
_OLD_MASK_NAME = re.compile(r"^(roi_heads\.mask_head)\.mask_fcn(\d+)\.(weight|bias)$")


@dataclass(frozen=True)
class LoadReport:
    """Which tensors were loaded. Names are those of the model's state dict.

    Attributes:
        source: "coco (file name)", "imagenet (file name)", "none" or the path.
        loaded: tensors that were loaded completely.
        by_class: tensors with rows of the source for the background and for some of the classes.
        missing: tensors of the model that are not in the source: randomly initialized.
        mismatched: tensors with another shape in the source (with both shapes): randomly initialized.
        unexpected: tensors of the source that the model does not have.
        by_part: (part, tensors loaded, tensors in total).
        by_class_in_part: (part, tensors loaded for some of the classes), for parts with any.
        rows: source of the rows of each class; empty if the source has no class rows of the right shape.
        named: whether the class names of the source are known, so that rows were matched by name.
    """

    source: str
    loaded: tuple[str, ...] = ()
    by_class: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()
    mismatched: tuple[str, ...] = ()
    unexpected: tuple[str, ...] = ()
    by_part: tuple[tuple[str, int, int], ...] = ()
    by_class_in_part: tuple[tuple[str, int], ...] = ()
    rows: tuple[ClassMatch, ...] = ()
    named: bool = True

    def __repr__(self) -> str:
        return f"LoadReport({self.lines()[0]})"

    @property
    def matched(self) -> tuple[tuple[str, str], ...]:
        """(class of the model, class of the source) for all classes that are initialized with rows of the source."""
        return tuple((match.name, match.source) for match in self.rows if match.row >= 0)

    def lines(self) -> list[str]:
        """Return a few lines for the terminal, part by part."""
        if not self.loaded:
            return [f"weights: {self.source}; all parts are randomly initialized"]
        total = sum(count for _, _, count in self.by_part)
        lines = [f"weights: {self.source}; {len(self.loaded) + len(self.by_class)} of {total} tensors loaded"]
        by_class = dict(self.by_class_in_part)
        full = [part for part, loaded, count in self.by_part if loaded == count]
        if full:
            lines.append(f"  loaded: {', '.join(full)}")
        for part, complete, count in self.by_part:
            loaded = complete + by_class.get(part, 0)
            if part in by_class:
                lines.append(f"  loaded for some classes: {by_class[part]} of {count} tensors of {part}")
            if not loaded:
                lines.append(f"  randomly initialized: {part}")
            elif loaded < count:
                lines.append(f"  randomly initialized: {count - loaded} of {count} tensors of {part}")
        lines += [f"    different shape: {text}" for text in self.mismatched]
        lines += [f"  {line}" for line in head_lines(self.rows, by_name=self.named)] if self.rows else []
        if self.unexpected:
            rest = f" and {len(self.unexpected) - 3} more" if len(self.unexpected) > 3 else ""
            lines.append(f"  not used: {', '.join(self.unexpected[:3])}{rest}")
        return lines


def load_weights(
    model: FreezableModel, weights: str | StartingWeights, *, class_transfer: Mapping[str, str] | None = None
) -> LoadReport:
    """Load ``weights`` into ``model``.

    Args:
        weights: "coco": torchvision's published detection weights of this architecture; "imagenet": its published
            classification weights, in a detector for the backbone only; "bundled": the file of this package; "none":
            nothing is loaded; otherwise a path (see ``read_state_dict``). A classification file also works for the
            backbone of a detector, and a detection file for that of a classifier; from "bundled" a classifier loads
            only the first stages. Half precision is converted to float32. A keypoint predictor of other keypoints is
            not loaded. If the class names are known (COCO weights, checkpoints of this project), the output layers
            are loaded class by class, by name (see ``class_transfer.py``). Opened weights are not read again.
        class_transfer: class of the model -> pretrained class whose rows initialize it, "" for none; overrides
            matching by name. For a file without class names, the pretrained class is a row number.

    Raises:
        DataError: the weights do not exist, cannot be downloaded, are corrupt, or are from another network; or
            ``class_transfer`` contains a class that does not exist.
        OSError: the file cannot be opened.
    """
    weights = StartingWeights.open(weights, model.description.arch)
    if weights.source == "none":
        if class_transfer:
            first = "=".join(next(iter(class_transfer.items())))
            raise DataError(f"--class-transfer {first}: --weights none has no rows to transfer; remove the option")
        return LoadReport("none", missing=tuple(_model_state(model)))
    return load_state(
        model,
        _without_other_keypoints(weights, model),
        weights.title,
        classes=weights.classes,
        class_transfer=class_transfer,
        stages=stages_to_load(weights.source, model.description.task),
    )


def load_state(
    model: FreezableModel,
    state: State,
    source: str,
    *,
    classes: SourceClasses | None = None,
    class_transfer: Mapping[str, str] | None = None,
    stages: int | None = None,
) -> LoadReport:
    """Load a state dict into ``model``; tensor names of all torchvision versions are supported.

    Args:
        classes: class of each row of the output layers; None if unknown: rows are then loaded in order if their number
            is the same, else these layers are randomly initialized.
        stages: number of backbone stages to load, counted from the input. Default: all.
        class_transfer: as in :func:`load_weights`.

    Raises:
        DataError: no tensor matches, or stem, backbone or neck match only partly: a file of another network; or
            ``class_transfer`` contains a class that does not exist.
    """
    later = () if stages is None else tuple(f"{name}." for stage in model.backbone_stages()[stages:] for name in stage)
    source_state = {name: tensor for name, tensor in rename(state, model).items() if not name.startswith(later)}
    model_state = _model_state(model)
    names = None if classes is None else classes.names
    transferred, rows = transfer_class_weights(
        model, model_state, source_state, names, class_transfer or {}, coco=classes is not None and classes.coco
    )
    source_state |= transferred
    by_class = [name for name in transferred if any(match.row < 0 for match in rows)]
    missing = [name for name in model_state if name not in source_state]
    common = [name for name in model_state if name in source_state]
    mismatched = [name for name in common if source_state[name].shape != model_state[name].shape]
    loaded = [name for name in common if name not in mismatched]
    checked = {name: tensor for name, tensor in model_state.items() if not name.startswith(later)}
    _check_same_network(model, loaded, source_state, checked, source)
    with torch.no_grad():
        for name in loaded:  # including those of by_class
            model_state[name].copy_(source_state[name])  # in place: the state dict shares the model's memory
    loaded = [name for name in loaded if name not in by_class]
    counts, totals = Counter(map(model.part_of, loaded)), Counter(map(model.part_of, model_state))
    return LoadReport(
        source,
        loaded=tuple(loaded),
        by_class=tuple(by_class),
        missing=tuple(missing),
        mismatched=tuple(
            f"{name} {list(source_state[name].shape)}, model {list(model_state[name].shape)}" for name in mismatched
        ),
        unexpected=tuple(name for name in source_state if name not in model_state and not name.endswith(COUNTER)),
        by_part=tuple((part, counts[part], totals[part]) for part in model.parts() if totals[part]),
        by_class_in_part=tuple(Counter(map(model.part_of, by_class)).items()),
        rows=rows,
        named=classes is not None,
    )


def rename(state: State, model: FreezableModel) -> State:
    """Rename the tensors of a file to the names in ``model``: old names, and classifier backbones to detector ones or
    back."""
    architecture = architecture_of(model.description.arch)
    if architecture.backbone.startswith(PREFIX):
        return timm_names(state, model, architecture.backbone)
    prefix = backbone_spec(architecture).prefix
    from_detector = any(name.startswith("backbone.") for name in state)
    to_detector = model.description.task != "classify"
    renamed = {}
    for name, tensor in state.items():
        name = _new_name(name)
        if architecture.family == "retinanet":
            name = retinanet_name(name)
        if to_detector and not from_detector:
            if architecture.family == "ssdlite":
                name = ssd_name(name)
            elif prefix and name.startswith(prefix):
                name = f"backbone.body.{name.removeprefix(prefix)}"
            elif not prefix:
                name = f"backbone.body.{name}"
        elif from_detector and not to_detector and name.startswith("backbone.body."):
            name = f"{prefix}{name.removeprefix('backbone.body.')}"
        renamed[name] = tensor
    return renamed


def _new_name(name: str) -> str:
    for pattern, replacement in _OLD_NAMES:
        name = pattern.sub(replacement, name)
    return _OLD_MASK_NAME.sub(lambda match: f"{match[1]}.{int(match[2]) - 1}.0.{match[3]}", name)


def _model_state(model: FreezableModel) -> dict[str, Any]:
    return {name: tensor for name, tensor in model.state_dict().items() if not name.endswith(COUNTER)}


def _check_same_network(
    model: FreezableModel, loaded: list[str], source_state: State, model_state: State, source: str
) -> None:
    """Check that parts before the heads are loaded completely or not at all: half a backbone has useless outputs."""
    arch = model.description.arch
    if not loaded:
        raise DataError(
            f"{source}: none of its {len(source_state)} tensors matches {arch}; names in the file: "
            f"{', '.join(list(source_state)[:2])}, ...; names in the model: {', '.join(list(model_state)[:2])}, ... "
            "Choose the --model that the file was trained with"
        )
    backbone = [name for name in model_state if model.part_of(name) in ("stem", "backbone")]
    neck = [name for name in model_state if model.part_of(name) == "neck"]
    matched = set(loaded)
    if not matched.intersection(backbone) and any(name.startswith("backbone.body.") for name in source_state):
        raise DataError(
            f"{source}: its backbone is from another network than {arch}: none of its tensors matches. Choose the "
            "--model that the file was trained with"
        )
    for names in (backbone, neck):
        unmatched = [name for name in names if name not in matched]
        if unmatched and len(unmatched) < len(names):
            first = unmatched[0]
            shape = list(source_state[first].shape) if first in source_state else "missing"
            raise DataError(
                f"{source}: {len(unmatched)} of {len(names)} tensors of the {model.part_of(first)} do not match "
                f"{arch}, first {first}: {shape} in the file, {list(model_state[first].shape)} in the model. "
                "Choose the --model that the file was trained with"
            )


def _without_other_keypoints(weights: StartingWeights, model: FreezableModel) -> State:
    """Return the tensors without their keypoint predictor if that is known to be for other keypoints than ``model``.

    The same number of keypoints does not mean the same keypoints: for a left ear, the weights of a right knee are a bad
    start. COCO weights have COCO's 17 keypoints, a checkpoint of this project lists its own; for other files they are
    unknown, so that only the shape is checked later.
    """
    schema, state = model.description.keypoints, weights.state
    if schema is None or not any(name.startswith(KEYPOINT_PREDICTOR) for name in state):
        return state
    source_names: tuple[str, ...] | None = COCO_NAMES
    if weights.source != "coco":
        saved = weights.description
        source_names = None if saved is None or saved.keypoints is None else saved.keypoints.names
    if source_names is None or [name.lower() for name in source_names] == [name.lower() for name in schema.names]:
        return state
    return {name: tensor for name, tensor in state.items() if not name.startswith(KEYPOINT_PREDICTOR)}
