"""Starting weights: what fits is loaded, what does not is listed, and a file of another network is refused."""

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
from detseg.models.base import FreezableModel
from detseg.models.build import architecture_of, no_coco_weights
from detseg.models.one_stage_build import retinanet_name, ssd_name
from detseg.models.timm_backbone import PREFIX, backbone_spec
from detseg.models.weights.bundled import BUNDLED, bundled_path, stages_taken
from detseg.models.weights.class_transfer import ClassMatch, head_lines, transfer_class_weights
from detseg.models.weights.published import fetch, file_name
from detseg.models.weights.source_classes import SourceClasses, source_classes
from detseg.models.weights.state_files import read_description, read_state_dict
from detseg.models.weights.timm_weights import fetch_timm, timm_names

KEYPOINT_PREDICTOR = "roi_heads.keypoint_predictor."
State = dict[str, Tensor]

HEADS = ("rpn", "box head", "mask head", "keypoint head", "head")
"""Parts whose shapes depend on the user's classes and anchors; elsewhere another shape means another network."""

COUNTER = "num_batches_tracked"
"""BatchNorm's counter, which frozen norm layers lack and nothing here reads."""

# Names in files from before torchvision 0.13
_OLD_NAMES = (
    (re.compile(r"^(backbone\.fpn\.(?:inner|layer)_blocks\.\d+)\.(weight|bias)$"), r"\1.0.\2"),
    (re.compile(r"^(rpn\.head\.conv)\.(weight|bias)$"), r"\1.0.0.\2"),
)
_OLD_MASK_NAME = re.compile(r"^(roi_heads\.mask_head)\.mask_fcn(\d+)\.(weight|bias)$")


@dataclass(frozen=True)
class LoadReport:
    """What became of the weights. Names are those of the model's state dict.

    Attributes:
        source: "coco (file name)", "imagenet (file name)", "none" or the path.
        loaded: tensors that were filled.
        by_class: tensors that have rows of the source for the background and for some of the classes.
        missing: tensors of the model that the source lacks: started from scratch.
        mismatched: tensors that have another shape in the source (which is told): started from scratch.
        unexpected: tensors of the source that the model has no place for.
        by_part: part -> (tensors loaded, tensors in all).
        by_class_in_part: part -> tensors loaded for some of the classes, where there are any.
        rows: what became of each class; empty if the source has no rows of classes that fit.
        named: whether the source names its classes, so that rows were matched by name.
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

    @property
    def matched(self) -> tuple[tuple[str, str], ...]:
        """(class of the model, class of the source) of all classes that start with rows of the source."""
        return tuple((match.name, match.source) for match in self.rows if match.row >= 0)

    def lines(self) -> list[str]:
        """A few lines for the terminal, part by part."""
        if not self.loaded:
            return [f"weights: {self.source}; every part starts from scratch"]
        total = sum(count for _, _, count in self.by_part)
        lines = [f"weights: {self.source}; {len(self.loaded) + len(self.by_class)} of {total} tensors loaded"]
        by_class = dict(self.by_class_in_part)
        full = [part for part, loaded, count in self.by_part if loaded == count]
        if full:
            lines.append(f"  loaded: {', '.join(full)}")
        for part, whole, count in self.by_part:
            loaded = whole + by_class.get(part, 0)
            if part in by_class:
                lines.append(f"  loaded for some classes: {by_class[part]} of {count} tensors of {part}")
            if not loaded:
                lines.append(f"  started from scratch: {part}")
            elif loaded < count:
                lines.append(f"  started from scratch: {count - loaded} of {count} tensors of {part}")
        lines += [f"    another shape: {text}" for text in self.mismatched]
        lines += [f"  {line}" for line in head_lines(self.rows, by_name=self.named)] if self.rows else []
        if self.unexpected:
            rest = f" and {len(self.unexpected) - 3} more" if len(self.unexpected) > 3 else ""
            lines.append(f"  not used: {', '.join(self.unexpected[:3])}{rest}")
        return lines


def load_weights(model: FreezableModel, weights: str, *, class_transfer: Mapping[str, str] | None = None) -> LoadReport:
    """Fill ``model`` with ``weights``.

    Args:
        weights: "coco": torchvision's published detection weights of this architecture; "imagenet": its published
            classification weights, for a detector the backbone only; "bundled": the file of this package; "none": nothing
            is loaded; otherwise a path (see ``read_state_dict``). A classification file also fills a detector's backbone,
            and a detector's file a classifier's; of "bundled" a classifier takes the first stages only. Half precision
            becomes float32. A keypoint predictor of other points is left out. Where COCO weights or a checkpoint of
            this project name their classes, last layers are filled class by class, by name (see ``class_transfer.py``).
        class_transfer: class of the model -> class of the weights whose rows it takes, "" for none, to overrule the names;
            for a file that names no classes the number of a row.

    Raises:
        DataError: there are no such weights, they cannot be fetched, or they are of another network; or
            ``class_transfer`` names a class that does not exist.
        OSError: the file cannot be opened.
    """
    arch = model.description.arch
    if weights == "none":
        if class_transfer:
            first = "=".join(next(iter(class_transfer.items())))
            raise DataError(f"--class-transfer {first}: there are no rows to give with weights none; leave it out")
        return LoadReport("none", missing=tuple(_wanted(model)))
    if weights == "coco":
        if architecture_of(arch).coco is None:
            raise DataError(no_coco_weights(arch))
        url = architecture_of(arch).coco.url
    elif weights == "imagenet" and architecture_of(arch).backbone.startswith(PREFIX):
        state, place = fetch_timm(architecture_of(arch).backbone)
        return load_state(model, state, f"{weights} ({place})")
    elif weights == "imagenet":
        url = backbone_spec(architecture_of(arch)).imagenet.url
    else:
        state = _without_other_keypoints(read_state_dict(weights), model, weights)
        source = f"{BUNDLED} ({bundled_path().name})" if weights == BUNDLED else str(weights)
        classes, stages = source_classes(weights, arch), stages_taken(weights, architecture_of(arch).task)
        return load_state(model, state, source, classes=classes, class_transfer=class_transfer, stages=stages)
    return load_state(
        model,
        _without_other_keypoints(fetch(url), model, weights),
        f"{weights} ({file_name(url)})",
        classes=source_classes(weights, arch),
        class_transfer=class_transfer,
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
    """Fill ``model`` from a state dict under any of the names that torchvision has given its tensors.

    Args:
        classes: what the rows of its last layers stand for; None if nobody knows: they are then taken in order if there
            are as many as here, else the layers start from scratch.
        stages: of the backbone, counted from the images on, that are filled. Default: all.
        class_transfer: as in :func:`load_weights`.

    Raises:
        DataError: nothing fits, or stem, backbone or neck fit only in part: a file of another network; or ``class_transfer``
            names a class that does not exist.
    """
    later = () if stages is None else tuple(f"{name}." for stage in model.backbone_stages()[stages:] for name in stage)
    found = {name: tensor for name, tensor in rename(state, model).items() if not name.startswith(later)}
    wanted = _wanted(model)
    names = None if classes is None else classes.names
    carried, rows = transfer_class_weights(
        model, wanted, found, names, class_transfer or {}, coco=classes is not None and classes.coco
    )
    found |= carried
    by_class = [name for name in carried if any(match.row < 0 for match in rows)]
    missing = [name for name in wanted if name not in found]
    mismatched = [name for name in wanted if name in found and found[name].shape != wanted[name].shape]
    loaded = [name for name in wanted if name in found and name not in mismatched]
    checked = {name: tensor for name, tensor in wanted.items() if not name.startswith(later)}
    _check_same_network(model, loaded, found, checked, source)
    with torch.no_grad():
        for name in loaded:  # those of by_class are among them here
            wanted[name].copy_(found[name])  # in place: the state dict shares the model's memory
    loaded = [name for name in loaded if name not in by_class]
    counts, totals = Counter(map(model.part_of, loaded)), Counter(map(model.part_of, wanted))
    return LoadReport(
        source,
        loaded=tuple(loaded),
        by_class=tuple(by_class),
        missing=tuple(missing),
        mismatched=tuple(f"{name} {list(found[name].shape)}, here {list(wanted[name].shape)}" for name in mismatched),
        unexpected=tuple(name for name in found if name not in wanted and not name.endswith(COUNTER)),
        by_part=tuple((part, counts[part], totals[part]) for part in model.parts() if totals[part]),
        by_class_in_part=tuple(Counter(map(model.part_of, by_class)).items()),
        rows=rows,
        named=classes is not None,
    )


def rename(state: State, model: FreezableModel) -> State:
    """The tensors of a file under the names that ``model`` has for them: old names, and backbone into detector or back."""
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


def _wanted(model: FreezableModel) -> dict[str, Any]:
    return {name: tensor for name, tensor in model.state_dict().items() if not name.endswith(COUNTER)}


def _check_same_network(model: FreezableModel, loaded: list[str], found: State, wanted: State, source: str) -> None:
    """A backbone that is filled in part computes nonsense, so a part before the heads is filled whole or not at all."""
    arch = model.description.arch
    if not loaded:
        raise DataError(
            f"{source}: none of its {len(found)} tensors fits {arch}; it has names like {', '.join(list(found)[:2])}, "
            f"the model like {', '.join(list(wanted)[:2])}. Choose the --model that the file was made with"
        )
    backbone = [name for name in wanted if model.part_of(name) in ("stem", "backbone")]
    neck = [name for name in wanted if model.part_of(name) == "neck"]
    good = set(loaded)
    if not good.intersection(backbone) and any(name.startswith("backbone.body.") for name in found):
        raise DataError(
            f"{source}: it has a backbone, but of another network than {arch}: none of its tensors fits. Choose the "
            "--model that the file was made with"
        )
    for names in (backbone, neck):
        bad = [name for name in names if name not in good]
        if bad and len(bad) < len(names):
            shape = list(found[bad[0]].shape) if bad[0] in found else "missing"
            raise DataError(
                f"{source}: {len(bad)} of {len(names)} tensors of the {model.part_of(bad[0])} do not fit {arch}, first "
                f"{bad[0]}: {shape} in the file, {list(wanted[bad[0]].shape)} in the model. "
                "Choose the --model that the file was made with"
            )


def _without_other_keypoints(state: dict[str, Tensor], model: FreezableModel, weights: str) -> dict[str, Tensor]:
    """``state`` without its keypoint predictor if that is known to find other points than ``model``.

    As many points are not the same points: a left ear learns slowly from the weights of a right knee.

    Args:
        weights: where ``state`` comes from: "coco" has COCO's 17, a checkpoint of this project says its own; of other
            files nobody knows, so the shape alone decides later.
    """
    schema = model.description.keypoints
    if schema is None or not any(name.startswith(KEYPOINT_PREDICTOR) for name in state):
        return state
    theirs: tuple[str, ...] | None = COCO_NAMES
    if weights != "coco":
        saved = read_description(weights)
        theirs = None if saved is None or saved.keypoints is None else saved.keypoints.names
    if theirs is None or [name.lower() for name in theirs] == [name.lower() for name in schema.names]:
        return state
    return {name: tensor for name, tensor in state.items() if not name.startswith(KEYPOINT_PREDICTOR)}
