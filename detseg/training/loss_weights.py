"""Read ``--loss-weights``: factors of the loss terms of a model."""

from __future__ import annotations

import math
from collections.abc import Sequence

from detseg.errors import DataError

PREFIX = "loss_"
LARGEST = 1e6
"""Largest factor; with larger ones, gradients overflow."""
GROUPS = {"rpn": ("objectness", "rpn_box_reg"), "box": ("classifier", "box_reg")}
"""Short name -> its terms. A term with the name of a group, such as a label field called box, takes precedence."""


def parse_loss_weights(option: str | Sequence[str] | None, terms: Sequence[str]) -> dict[str, float]:
    """Parse ``--loss-weights``: name of a loss -> its factor. Empty without weights.

    Args:
        option: ``mask=2,rpn=0.5``, or a list of such pairs.
        terms: names of the model's losses, such as "loss_mask". They may contain "=".

    Raises:
        DataError: not a pair, a factor that is not a number of at least 0, a term that the model does not have, or a
            term with two factors.
    """
    names = [term.removeprefix(PREFIX) for term in terms]
    groups = {group: members for group, members in GROUPS.items() if group not in names and set(members) <= set(names)}
    weights: dict[str, float] = {}
    texts = option.split(",") if isinstance(option, str) else list(option or ())
    for text in (text.strip() for text in texts):
        if not text:
            continue
        name, _, number = (part.strip() for part in (text if "=" in text else f"{text}=").rpartition("="))
        if name not in names and name not in groups:
            groups_text = "".join(f"; {group}: {' and '.join(members)}" for group, members in groups.items())
            raise DataError(
                f"--loss-weights {text}: {name!r} is not a loss term of this model; use TERM=FACTOR with the terms "
                f"{', '.join(names)}{groups_text}"
            )
        for member in groups.get(name, (name,)):
            if PREFIX + member in weights:
                raise DataError(f"--loss-weights {text}: {member} has two factors; give only one")
            weights[PREFIX + member] = _factor(text, number)
    if terms and not any(weights.get(term, 1.0) for term in terms):
        raise DataError(f"--loss-weights {option}: every loss has factor 0, so nothing would be trained; raise one")
    return weights


def _factor(text: str, number: str) -> float:
    try:
        factor = float(number)
    except ValueError:
        factor = math.nan
    if not 0 <= factor <= LARGEST:
        raise DataError(
            f"--loss-weights {text}: the factor {number!r} must be a number of at least 0 and at most {LARGEST:g}, "
            "such as 0.5"
        )
    return factor
