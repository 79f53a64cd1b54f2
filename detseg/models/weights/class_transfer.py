"""Match classes by name, and transfer the rows of the output layers from pretrained classes to the model's classes.

An output layer has one or several rows per class, so a head for other classes does not match as a whole. But if a class
has the name, or a listed synonym, of a pretrained class, its rows of box classifier, box regressor and mask predictor
are as useful in the new head as in the old one, and so are those of the background. For all other classes the
classifier rows are randomly initialized; their rows of box regressor and mask predictor start as the mean of all
pretrained classes, because box corrections and object outlines are similar for every class.

The random initialization is torchvision's. Its values are small, so an untrained class has logits around 0, the same as
the mean over the classes of a trained softmax (the gradient of cross entropy does not change the sum of all rows): the
class is neither preferred to the trained ones nor suppressed. Measured on the demo set, with weights for bolt and nut:
an untrained washer gets a mean probability of 0.06 (the trained nut 0.07, the mean of the trained rows 0.04), has the
highest score in 6 of 6000 boxes, and does not change the AP of the others. A copy of the background's row would get
half of the background's probability.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from detseg.errors import DataError
from detseg.models.base import FreezableModel
from detseg.models.weights.synonyms import AMBIGUOUS, broader, is_ambiguous, meanings, plain_name

BACKGROUND = ""
"""Name of a row that is not a class: the background, and the gaps in COCO's numbering."""

SHOWN = 12
"""Number of randomly initialized classes that are printed by name; the rest is counted."""

_DETECTOR_LAYERS = (
    (re.compile(r"roi_heads\.box_predictor\.cls_score\.(weight|bias)"), 1),
    (re.compile(r"roi_heads\.box_predictor\.bbox_pred\.(weight|bias)"), 4),  # dx, dy, dw, dh of each class
    (re.compile(r"roi_heads\.mask_predictor\.mask_fcn_logits\.(weight|bias)"), 1),
    (re.compile(r"head\.classification_head\.cls_logits\.(weight|bias)"), 1),
    (re.compile(r"head\.classification_head\.module_list\.\d+\.1\.(weight|bias)"), 1),  # SSDLite
)


_CLASS_AGNOSTIC = re.compile(r"roi_heads\.(box_predictor\.bbox_pred|mask_predictor\.mask_fcn_logits)\.(weight|bias)")
"""Layers whose rows are similar for every class."""


@dataclass(frozen=True)
class ClassMatch:
    """Source of the rows of one class.

    Attributes:
        name: the class of the model.
        source: the pretrained class whose rows it gets; "" if it is randomly initialized.
        row: row number of that class in the weights; -1 if there is none.
        remark: the reason, if the names are not equal; else "".
    """

    name: str
    source: str = ""
    row: int = -1
    remark: str = ""

    def text(self) -> str:
        """Return one match as text, such as ``worker <- person (--class-transfer)``."""
        text = f"{self.name} <- {self.source}" if self.row >= 0 else f"{self.name} randomly initialized"
        return f"{text} ({self.remark})" if self.remark else text


def class_pairs(option: str | Sequence[str] | None, names: Sequence[str]) -> dict[str, str]:
    """Parse ``--class-transfer`` to a dict: class of the model -> pretrained class, "" for none.

    Args:
        option: ``worker=person,bolt=``, or a list of such pairs.
        names: the K classes of the model. They may contain "=".

    Raises:
        DataError: not a pair, a class that the model does not have, or a class with two values.
    """
    texts = option.split(",") if isinstance(option, str) else list(option or ())
    pairs: dict[str, str] = {}
    for text in (text.strip() for text in texts):
        if not text:
            continue
        if "=" not in text:
            raise DataError(
                f"--class-transfer {text}: use CLASS=PRETRAINED CLASS, such as worker=person, or bolt= for none"
            )
        parts = text.split("=")
        splits = [("=".join(parts[:end]).strip(), "=".join(parts[end:]).strip()) for end in range(1, len(parts))]
        valid = [(indices[0], right) for left, right in splits if len(indices := _same_name(left, names)) == 1]
        if not valid:
            raise DataError(
                f"--class-transfer {text}: the data has no class {splits[0][0]!r}; its classes are {', '.join(names)}"
            )
        name, right = names[valid[0][0]], valid[0][1]
        if pairs.setdefault(name, right) != right:
            raise DataError(f"--class-transfer: {name} has two values, {pairs[name]!r} and {right!r}; use one")
    return pairs


def match_class_weights(
    names: Sequence[str], source: Sequence[str], overrides: Mapping[str, str], *, coco: bool = False
) -> tuple[ClassMatch, ...]:
    """Match each class to a row of the weights, by name.

    The first rule with a match is used: the user's override; the exact name; the name without case, underscores,
    hyphens and spaces; its plural or a listed synonym; a listed class of which it is a subclass. A name with different
    meanings in different data sets matches only itself. Several classes may get the same rows.

    Args:
        names: the K classes of the model.
        source: the class of each row of the weights; ``BACKGROUND`` for a row that is not a class.
        overrides: class of the model -> pretrained class, "" for none; see :func:`class_pairs`.
        coco: whether the weights are COCO's, so that the meaning of ambiguous names is explained.

    Raises:
        DataError: ``overrides`` contains a class that the model or the weights do not have.
    """
    _check_classes(names, overrides)
    return tuple(_match(name, source, overrides.get(name), coco) for name in names)


def match_row_numbers(
    names: Sequence[str], rows: int, overrides: Mapping[str, str], *, background: bool
) -> tuple[ClassMatch, ...]:
    """Match each class to a row of weights without class names: the row number in ``overrides``.

    If the weights have as many rows as the model, all other classes get their rows in order; else they are randomly
    initialized.

    Args:
        rows: number of rows of the weights.
        overrides: class of the model -> row number, "" for none.
        background: whether row 0 is the background.

    Raises:
        DataError: as :func:`match_class_weights`.
    """
    _check_classes(names, overrides)
    first = int(background)
    numbers = [BACKGROUND] * first + [str(row) for row in range(first, rows)]
    in_order = len(names) + first == rows
    matches = []
    for row, name in enumerate(names, start=first):
        number = overrides.get(name)
        if number is not None and number in numbers[first:]:
            matches.append(ClassMatch(name, f"row {number}", int(number), "--class-transfer"))
        elif number:
            raise DataError(
                f"--class-transfer {name}={number}: the weights have no row {number!r}; their rows are {first} to "
                f"{rows - 1}"
            )
        elif number is not None:
            matches.append(ClassMatch(name, remark="--class-transfer"))
        else:
            matches.append(ClassMatch(name, f"row {row}", row) if in_order else ClassMatch(name))
    return tuple(matches)


def transfer_class_weights(
    model: FreezableModel,
    model_state: Mapping[str, Tensor],
    source_state: Mapping[str, Tensor],
    source: Sequence[str] | None,
    overrides: Mapping[str, str],
    *,
    coco: bool = False,
) -> tuple[dict[str, Tensor], tuple[ClassMatch, ...]]:
    """Return the model's output layers with the pretrained rows of its classes and of the background.

    Args:
        model_state: the model's state dict, randomly initialized.
        source_state: the weights, with the same names.
        source: the class of each of their rows; None if unknown. Then a head of the same size is used unchanged, and
            another one only for the row numbers in ``overrides``.
        overrides, coco: see :func:`match_class_weights`.

    Returns:
        Name -> tensor of the model's shape, and the match of each class; both empty if the weights have no such layers,
        or those of another network.

    Raises:
        DataError: ``overrides`` contains a class that the model or the weights do not have, or the weights have no
            class rows.
    """
    names = model.description.class_map.names
    background = int(model.description.task != "classify")
    model_rows = len(names) + background
    layers = {name: count for name, count in class_tensors(model, model_state).items() if name in source_state}
    counts = {name: rows_in(source_state[name], model_state[name], model_rows) for name in layers}
    source_rows = next(iter(counts.values()), None) if source is None else len(source)
    layers = {name: count for name, count in layers.items() if source_rows is not None and counts[name] == source_rows}
    if source_rows is None or not layers:
        if overrides:
            first = "=".join(next(iter(overrides.items())))
            raise DataError(
                f"--class-transfer {first}: the weights have no class rows of this head's shape; remove the option"
            )
        return {}, ()
    if source is not None:
        matches = match_class_weights(names, source, overrides, coco=coco)
    elif overrides or source_rows == model_rows:
        matches = match_row_numbers(names, source_rows, overrides, background=bool(background))
    else:  # rows of other, unknown classes; a classifier's file is usually ImageNet's
        return {}, tuple(map(ClassMatch, names)) if background else ()
    pairs = [(row, match.row) for row, match in enumerate(matches, start=background) if match.row >= 0]
    pairs += [(0, 0)] * background
    new_rows = [row for row, match in enumerate(matches, start=background) if match.row < 0]
    trained_rows = [row for row in range(background, source_rows) if source is None or source[row] != BACKGROUND]
    transferred = {}
    for name, count in layers.items():
        rows = (model_rows, source_rows)
        tensor = copy_class_weights(model_state[name], source_state[name], pairs, rows=rows, per_class=count)
        if _CLASS_AGNOSTIC.fullmatch(name) and trained_rows:
            mean = mean_row(source_state[name], trained_rows, rows=source_rows, per_class=count)
            mean_pairs = [(row, 0) for row in new_rows]
            tensor = copy_class_weights(tensor, mean, mean_pairs, rows=(model_rows, 1), per_class=count)
        transferred[name] = tensor
    return transferred, matches


def class_tensors(model: FreezableModel, model_state: Mapping[str, Tensor]) -> dict[str, int]:
    """Return the state-dict names of the tensors with class rows -> number of rows per class (and anchor).

    Args:
        model_state: the model's state dict.
    """
    if model.description.task != "classify":
        return {name: count for name in model_state for layer, count in _DETECTOR_LAYERS if layer.fullmatch(name)}
    last = [name for name in model_state if model.part_of(name) == "head"][-1].rpartition(".")[0]
    return {f"{last}.{kind}": 1 for kind in ("weight", "bias") if f"{last}.{kind}" in model_state}


def rows_in(tensor: Tensor, like: Tensor, rows: int) -> int | None:
    """Return the number of classes (with background) in ``tensor``, if ``like`` has ``rows`` of them; None if it is
    from another network: a size other than the first differs, or the first is not a multiple."""
    per_class, remainder = divmod(like.shape[0], rows)
    if remainder or tensor.ndim != like.ndim or tensor.shape[1:] != like.shape[1:] or tensor.shape[0] % per_class:
        return None
    return int(tensor.shape[0]) // per_class or None


def copy_class_weights(
    target: Tensor, source: Tensor, pairs: Sequence[tuple[int, int]], *, rows: tuple[int, int], per_class: int
) -> Tensor:
    """Return ``target`` with some rows replaced by rows of ``source``. Neither argument is changed.

    Args:
        target: [A * R * per_class, ...]: ``per_class`` rows for each of A anchors (1 without anchors) and R classes
            (with background). FastRCNNPredictor's cls_score [R, C] and bbox_pred [R * 4, C], MaskRCNNPredictor's
            mask_fcn_logits [R, C, 1, 1], RetinaNet's cls_logits [A * R, C, 3, 3], and their biases.
        source: the same for S classes including background: [A * S * per_class, ...].
        pairs: (row of target, row of source), in 0..R-1 and 0..S-1.
        rows: R and S.
    """
    target_rows, source_rows = rows
    result = target.detach().clone(memory_format=torch.contiguous_format)
    target_view = result.view(-1, target_rows, per_class, *target.shape[1:])
    source_view = source.reshape(-1, source_rows, per_class, *source.shape[1:])
    with torch.no_grad():
        for row, source_row in pairs:
            target_view[:, row] = source_view[:, source_row].to(target_view.dtype)
    return result


def mean_row(source: Tensor, indices: Sequence[int], *, rows: int, per_class: int) -> Tensor:
    """Return the mean of some of the rows 0..rows-1 of an output layer: [A * per_class, ...], a ``source`` for
    :func:`copy_class_weights`."""
    source_view = source.reshape(-1, rows, per_class, *source.shape[1:])
    return source_view[:, list(indices)].float().mean(dim=1).flatten(0, 1)


def head_lines(matches: Sequence[ClassMatch], *, by_name: bool) -> list[str]:
    """Return lines for the terminal: every match, and how to match the other classes."""
    matched = [match for match in matches if match.row >= 0]
    random = [match for match in matches if match.row < 0]
    if not by_name and not random and not any(match.remark for match in matched):
        return [f"heads: the weights have no class names; the rows of all {len(matched)} classes are used in order"]
    texts = [match.text() for match in matched]
    if len(random) > SHOWN:
        names = [match.name for match in random if not match.remark]
        texts += [match.text() for match in random if match.remark]
        texts += [f"{', '.join(names[:SHOWN])} and {len(names) - SHOWN} more randomly initialized"] if names else []
    else:
        texts += [match.text() for match in random]
    if not random:
        return [f"heads: every class is initialized from a pretrained class: {', '.join(texts)}"]
    source = "a pretrained class" if by_name else "a row number of the weights"
    return [f"heads: {', '.join(texts)}", f"  (--class-transfer {random[0].name}=X initializes a class from {source})"]


def _match(name: str, source: Sequence[str], override: str | None, coco: bool) -> ClassMatch:
    if override is not None:
        return _override(name, source, override)
    for rows, relation in ((_same_name(name, source), ""), *_similar(name, source)):
        if len(rows) > 1:
            options = " and ".join(source[row] for row in rows)
            remark = f"{options} both match: choose with --class-transfer {name}={source[rows[0]]}"
            return ClassMatch(name, remark=remark)
        if rows:
            meaning = AMBIGUOUS.get(plain_name(name), "") if coco and not relation else ""
            remark = f"COCO means {meaning}; if not: --class-transfer {name}=" if meaning else relation
            return ClassMatch(name, source[rows[0]], rows[0], remark)
    return ClassMatch(name)


def _override(name: str, source: Sequence[str], override: str) -> ClassMatch:
    if not override.strip():
        return ClassMatch(name, remark="--class-transfer")
    for rows, _ in ((_same_name(override, source), ""), *_similar(override, source)):
        if len(rows) == 1:
            return ClassMatch(name, source[rows[0]], rows[0], "--class-transfer")
    classes = ", ".join(item for item in source if item != BACKGROUND)
    raise DataError(
        f"--class-transfer {name}={override}: the weights have no class {override!r}; their classes are {classes}"
    )


def _same_name(name: str, names: Sequence[str]) -> list[int]:
    """Return the indices of ``name`` in ``names``; without an exact match, ignoring case and separators."""
    exact = [index for index, other in enumerate(names) if other == name != BACKGROUND]
    plain = plain_name(name)
    return exact or [index for index, other in enumerate(names) if plain and plain_name(other) == plain]


def _similar(name: str, source: Sequence[str]) -> list[tuple[list[int], str]]:
    if is_ambiguous(name):
        return []
    source_meanings = [meanings(other) if other != BACKGROUND else set() for other in source]
    same, wider = meanings(name), broader(name)
    return [
        ([row for row, other in enumerate(source_meanings) if same & other], "synonym"),
        ([row for row, other in enumerate(source_meanings) if wider & other], "subclass"),
    ]


def _check_classes(names: Sequence[str], overrides: Mapping[str, str]) -> None:
    for name in overrides:
        if name not in names:
            raise DataError(
                f"--class-transfer {name}={overrides[name]}: the data has no class {name!r}; its classes are "
                f"{', '.join(names)}"
            )
