"""Last layers by class name: which rows of the weights belong to a class of the model, and copying them.

A last layer has a row (or a few) for each class, so a head for other classes does not fit as a whole. But where a class
has the name, or a listed synonym, of a class that the weights know, its rows of box classifier, box regressor and mask
predictor are as good for the new head as they were for the old one, and so are those of the background. The classifier
rows of all other classes start from scratch; their rows of box regressor and mask predictor start as the mean of those
of all classes of the weights, because how a box is corrected and where an object ends is much the same for every class.

From scratch means torchvision's own random numbers. They are small, so an untrained class has logits around 0, where
the mean class of a trained softmax stands too (the gradient of cross entropy moves the sum of all rows by nothing): the
class neither beats the trained ones nor is out of their reach. Measured on the demo set, with weights that know bolt
and nut: an untrained washer gets a mean probability of 0.06 (the trained nut 0.07, the mean of the known rows 0.04), is
the first choice in 6 of 6000 boxes, and leaves the AP of the others where it was. A copy of the background's row would
take half of the background's probability.
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
"""Name of a row that is no class: the background, and the gaps in COCO's numbering."""

SHOWN = 12
"""Classes from scratch that are named in a line; the rest is counted."""

_DETECTOR_LAYERS = (
    (re.compile(r"roi_heads\.box_predictor\.cls_score\.(weight|bias)"), 1),
    (re.compile(r"roi_heads\.box_predictor\.bbox_pred\.(weight|bias)"), 4),  # dx, dy, dw, dh of each class
    (re.compile(r"roi_heads\.mask_predictor\.mask_fcn_logits\.(weight|bias)"), 1),
    (re.compile(r"head\.classification_head\.cls_logits\.(weight|bias)"), 1),
    (re.compile(r"head\.classification_head\.module_list\.\d+\.1\.(weight|bias)"), 1),  # SSDLite
)


_ALIKE = re.compile(r"roi_heads\.(box_predictor\.bbox_pred|mask_predictor\.mask_fcn_logits)\.(weight|bias)")
"""Layers whose rows say much the same for every class."""


@dataclass(frozen=True)
class ClassMatch:
    """Where the rows of one class come from.

    Attributes:
        name: the class of the model.
        source: the class of the weights whose rows it takes; "" if it starts from scratch.
        row: number of that class's row in the weights; -1 if there is none.
        remark: why, where the names do not say it; "" where they do.
    """

    name: str
    source: str = ""
    row: int = -1
    remark: str = ""

    def text(self) -> str:
        """``worker <- person (--class-transfer)``"""
        what = f"{self.name} <- {self.source}" if self.row >= 0 else f"{self.name} starts from scratch"
        return f"{what} ({self.remark})" if self.remark else what


def class_pairs(given: str | Sequence[str] | None, names: Sequence[str]) -> dict[str, str]:
    """``--class-transfer`` as a dict: class of the model -> class of the weights, "" for none.

    Args:
        given: ``worker=person,bolt=``, or a list of such pairs.
        names: the K classes of the model. They may have "=" in them.

    Raises:
        DataError: no pair, a class that the model does not have, or one class twice.
    """
    pieces = given.split(",") if isinstance(given, str) else list(given or ())
    pairs: dict[str, str] = {}
    for piece in (piece.strip() for piece in pieces):
        if not piece:
            continue
        if "=" not in piece:
            raise DataError(
                f"--class-transfer {piece}: give CLASS=CLASS OF THE WEIGHTS, such as worker=person, or bolt= for none"
            )
        parts = piece.split("=")
        splits = [("=".join(parts[:end]).strip(), "=".join(parts[end:]).strip()) for end in range(1, len(parts))]
        known = [(found[0], right) for left, right in splits if len(found := _named(left, names)) == 1]
        if not known:
            raise DataError(
                f"--class-transfer {piece}: the data has no class {splits[0][0]!r}; it has {', '.join(names)}"
            )
        name, right = names[known[0][0]], known[0][1]
        if pairs.setdefault(name, right) != right:
            raise DataError(f"--class-transfer: {name} is given {pairs[name]!r} and {right!r}; give it once")
    return pairs


def match_class_weights(
    names: Sequence[str], source: Sequence[str], given: Mapping[str, str], *, coco: bool = False
) -> tuple[ClassMatch, ...]:
    """Which rows each class takes, by name.

    The first rule that finds anything decides: what the user gives; the name itself; the name without case,
    underscores, hyphens and spaces; its plural or a listed synonym; the class that it is a listed kind of. A name that
    means different things in different places matches only itself. Several classes may take the same rows.

    Args:
        names: the K classes of the model.
        source: the class of each row of the weights; ``BACKGROUND`` for a row that is none.
        given: class of the model -> class of the weights, "" for none; see :func:`class_pairs`.
        coco: the weights are COCO's, so a name that is easily mistaken is explained.

    Raises:
        DataError: ``given`` names a class that the model or the weights do not have.
    """
    _check_given(names, given)
    return tuple(_match(name, source, given.get(name), coco) for name in names)


def match_row_numbers(
    names: Sequence[str], rows: int, given: Mapping[str, str], *, background: bool
) -> tuple[ClassMatch, ...]:
    """Which rows each class takes from weights that do not name their classes: as given, by number.

    With as many rows as the model has, all other classes take theirs in order; else they start from scratch.

    Args:
        rows: how many the weights have.
        given: class of the model -> number of a row, "" for none.
        background: whether row 0 is the background.

    Raises:
        DataError: as :func:`match_class_weights`.
    """
    _check_given(names, given)
    first = int(background)
    numbers = [BACKGROUND] * first + [str(row) for row in range(first, rows)]
    in_order = len(names) + first == rows
    matches = []
    for place, name in enumerate(names, start=first):
        number = given.get(name)
        if number is not None and number in numbers[first:]:
            matches.append(ClassMatch(name, f"row {number}", int(number), "--class-transfer"))
        elif number:
            raise DataError(
                f"--class-transfer {name}={number}: the weights have no row {number!r}; they have {first} to {rows - 1}"
            )
        elif number is not None:
            matches.append(ClassMatch(name, remark="--class-transfer"))
        else:
            matches.append(ClassMatch(name, f"row {place}", place) if in_order else ClassMatch(name))
    return tuple(matches)


def transfer_class_weights(
    model: FreezableModel,
    wanted: Mapping[str, Tensor],
    found: Mapping[str, Tensor],
    source: Sequence[str] | None,
    given: Mapping[str, str],
    *,
    coco: bool = False,
) -> tuple[dict[str, Tensor], tuple[ClassMatch, ...]]:
    """The model's last layers with the rows that the weights have for its classes and for the background.

    Args:
        wanted: the model's state dict, with the random numbers that it starts from.
        found: the weights, under the same names.
        source: the class of each of their rows; None if they do not say. Then a head of the same size is taken as it
            is, and another one only where ``given`` numbers its rows.
        given, coco: see :func:`match_class_weights`.

    Returns:
        Name -> tensor of the model's shape, and what became of each class; both empty if the weights have no such
        layers, or those of another network.

    Raises:
        DataError: ``given`` names a class that the model or the weights do not have, or there are no rows to give.
    """
    names = model.description.class_map.names
    background = int(model.description.task != "classify")
    ours = len(names) + background
    layers = {name: count for name, count in class_tensors(model, wanted).items() if name in found}
    counts = {name: rows_in(found[name], wanted[name], ours) for name in layers}
    theirs = next(iter(counts.values()), None) if source is None else len(source)
    layers = {name: count for name, count in layers.items() if theirs is not None and counts[name] == theirs}
    if theirs is None or not layers:
        if given:
            first = "=".join(next(iter(given.items())))
            raise DataError(
                f"--class-transfer {first}: the weights have no rows of classes that fit this head; leave it out"
            )
        return {}, ()
    if source is not None:
        matches = match_class_weights(names, source, given, coco=coco)
    elif given or theirs == ours:
        matches = match_row_numbers(names, theirs, given, background=bool(background))
    else:  # rows of other classes, nobody knows which; a classifier's file is most often ImageNet's
        return {}, tuple(map(ClassMatch, names)) if background else ()
    pairs = [(place, match.row) for place, match in enumerate(matches, start=background) if match.row >= 0]
    pairs += [(0, 0)] * background
    new = [place for place, match in enumerate(matches, start=background) if match.row < 0]
    known = [row for row in range(background, theirs) if source is None or source[row] != BACKGROUND]
    carried = {}
    for name, count in layers.items():
        filled = copy_class_weights(wanted[name], found[name], pairs, rows=(ours, theirs), per_class=count)
        if _ALIKE.fullmatch(name) and known:
            mean = mean_row(found[name], known, rows=theirs, per_class=count)
            filled = copy_class_weights(filled, mean, [(place, 0) for place in new], rows=(ours, 1), per_class=count)
        carried[name] = filled
    return carried, matches


def class_tensors(model: FreezableModel, wanted: Mapping[str, Tensor]) -> dict[str, int]:
    """State-dict names of the tensors that have rows for classes -> rows of a class (of an anchor).

    Args:
        wanted: the model's state dict.
    """
    if model.description.task != "classify":
        return {name: count for name in wanted for layer, count in _DETECTOR_LAYERS if layer.fullmatch(name)}
    last = [name for name in wanted if model.part_of(name) == "head"][-1].rpartition(".")[0]
    return {f"{last}.{kind}": 1 for kind in ("weight", "bias") if f"{last}.{kind}" in wanted}


def rows_in(tensor: Tensor, like: Tensor, rows: int) -> int | None:
    """How many classes and backgrounds ``tensor`` has rows for, if ``like`` has rows for ``rows``; None if it is of
    another network: other sizes than the first differ, or the first is no multiple."""
    per_class, left = divmod(like.shape[0], rows)
    if left or tensor.ndim != like.ndim or tensor.shape[1:] != like.shape[1:] or tensor.shape[0] % per_class:
        return None
    return int(tensor.shape[0]) // per_class or None


def copy_class_weights(
    target: Tensor, source: Tensor, pairs: Sequence[tuple[int, int]], *, rows: tuple[int, int], per_class: int
) -> Tensor:
    """``target`` with rows of ``source``; all other rows as they are. Neither is changed.

    Args:
        target: [A * R * per_class, ...]: for each of A anchors (1 where there are none) and R classes and background,
            ``per_class`` rows. As FastRCNNPredictor's cls_score [R, C] and bbox_pred [R * 4, C], MaskRCNNPredictor's
            mask_fcn_logits [R, C, 1, 1], RetinaNet's cls_logits [A * R, C, 3, 3], and their biases.
        source: the same for S classes and background: [A * S * per_class, ...].
        pairs: (row of target, row of source), in 0..R-1 and 0..S-1.
        rows: R and S.
    """
    ours, theirs = rows
    result = target.detach().clone(memory_format=torch.contiguous_format)
    to = result.view(-1, ours, per_class, *target.shape[1:])
    of = source.reshape(-1, theirs, per_class, *source.shape[1:])
    with torch.no_grad():
        for row, their_row in pairs:
            to[:, row] = of[:, their_row].to(to.dtype)
    return result


def mean_row(source: Tensor, among: Sequence[int], *, rows: int, per_class: int) -> Tensor:
    """The mean of the rows ``among`` 0..rows-1 of a last layer: [A * per_class, ...], as :func:`copy_class_weights` takes it."""
    of = source.reshape(-1, rows, per_class, *source.shape[1:])
    return of[:, list(among)].float().mean(dim=1).flatten(0, 1)


def head_lines(matches: Sequence[ClassMatch], *, by_name: bool) -> list[str]:
    """What to say about the rows: every match, and what can be done about the others."""
    found = [match for match in matches if match.row >= 0]
    scratch = [match for match in matches if match.row < 0]
    if not by_name and not scratch and not any(match.remark for match in found):
        return [f"heads: the weights do not name their classes; the rows of all {len(found)} are taken in order"]
    texts = [match.text() for match in found]
    if len(scratch) > SHOWN:
        plain = [match.name for match in scratch if not match.remark]
        texts += [match.text() for match in scratch if match.remark]
        texts += [f"{', '.join(plain[:SHOWN])} and {len(plain) - SHOWN} more start from scratch"] if plain else []
    else:
        texts += [match.text() for match in scratch]
    if not scratch:
        return [f"heads: every class starts with rows of the weights: {', '.join(texts)}"]
    what = "the rows of a class of the weights" if by_name else "a row by its number"
    return [f"heads: {', '.join(texts)}", f"  (--class-transfer {scratch[0].name}=X gives a class {what})"]


def _match(name: str, source: Sequence[str], given: str | None, coco: bool) -> ClassMatch:
    if given is not None:
        return _given(name, source, given)
    for rows, how in ((_named(name, source), ""), *_alike(name, source)):
        if len(rows) > 1:
            both = " and ".join(source[row] for row in rows)
            return ClassMatch(name, remark=f"{both} would fit: choose with --class-transfer {name}={source[rows[0]]}")
        if rows:
            meant = AMBIGUOUS.get(plain_name(name), "") if coco and not how else ""
            return ClassMatch(
                name, source[rows[0]], rows[0], f"COCO means {meant}; else --class-transfer {name}=" if meant else how
            )
    return ClassMatch(name)


def _given(name: str, source: Sequence[str], given: str) -> ClassMatch:
    if not given.strip():
        return ClassMatch(name, remark="--class-transfer")
    for rows, _ in ((_named(given, source), ""), *_alike(given, source)):
        if len(rows) == 1:
            return ClassMatch(name, source[rows[0]], rows[0], "--class-transfer")
    known = ", ".join(item for item in source if item != BACKGROUND)
    raise DataError(f"--class-transfer {name}={given}: the weights have no class {given!r}; they have {known}")


def _named(name: str, names: Sequence[str]) -> list[int]:
    """Places of ``name`` itself in ``names``, else of what is the same without case and separators."""
    exact = [place for place, other in enumerate(names) if other == name != BACKGROUND]
    plain = plain_name(name)
    return exact or [place for place, other in enumerate(names) if plain and plain_name(other) == plain]


def _alike(name: str, source: Sequence[str]) -> list[tuple[list[int], str]]:
    if is_ambiguous(name):
        return []
    theirs = [meanings(other) if other != BACKGROUND else set() for other in source]
    same, wider = meanings(name), broader(name)
    return [
        ([place for place, other in enumerate(theirs) if same & other], "synonym"),
        ([place for place, other in enumerate(theirs) if wider & other], "a kind of it"),
    ]


def _check_given(names: Sequence[str], given: Mapping[str, str]) -> None:
    for name in given:
        if name not in names:
            raise DataError(
                f"--class-transfer {name}={given[name]}: the data has no class {name!r}; it has {', '.join(names)}"
            )
