"""Define an option: its default and the reason for it, its help text, and the range of its numbers."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import MISSING, Field, dataclass, field, fields
from typing import Any

from detseg.errors import DataError

LIMIT = 1e9
"""Largest number of an option that states no other: above it, a run could only overflow, or never end."""

MAX_WORKERS = 1024
"""Largest number of loader processes."""

MAX_SEED = 2**63 - 1
"""Largest seed."""


@dataclass(frozen=True)
class Default:
    """A default that depends on the data or the machine.

    Attributes:
        value: of the option.
        reason: printed when the value is chosen, and by ``--help``.
        when: the condition, for ``--help``, such as "on CUDA".
    """

    value: Any
    reason: str
    when: str = ""


@dataclass(frozen=True)
class Range:
    """The numbers that an option may have; for a list, each of its numbers.

    Attributes:
        least, most: smallest and largest allowed number.
        above, below: numbers that the option must be above or below.
        example: a number in the range, for messages.
        limit: largest number that can work where no upper bound is part of the meaning; only messages state it.
    """

    least: float | None = None
    most: float | None = None
    above: float | None = None
    below: float | None = None
    example: float | None = None
    limit: float = LIMIT

    def contains(self, value: float) -> bool:
        """Whether ``value`` is finite and in the range."""
        return (self.most is not None or value <= self.limit) and self._is_within_bounds(value)

    def expected(self, value: float) -> str:
        """What a number out of the range must be."""
        return f"at most {self.limit:g}" if self._is_within_bounds(value) else str(self)

    def _is_within_bounds(self, value: float) -> bool:
        return (
            -math.inf < value < math.inf  # also for whole numbers that are too large for a float
            and (self.least is None or value >= self.least)
            and (self.most is None or value <= self.most)
            and (self.above is None or value > self.above)
            and (self.below is None or value < self.below)
        )

    def __str__(self) -> str:
        bounds = {
            "at least": self.least,
            "at most": self.most,
            "a number above": self.above,
            "below": self.below,
        }
        text = " and ".join(f"{name} {bound:g}" for name, bound in bounds.items() if bound is not None)
        return text if self.example is None else f"{text}, such as {self.example:g}"


@dataclass(frozen=True)
class Option:
    """An option of a command.

    Attributes:
        item: its field, made by :func:`option`.
        kind: the type of its values.
    """

    item: Field[Any]
    kind: Any

    @property
    def flag(self) -> str:
        """Its command-line flag."""
        return flag(self.item.name)

    @property
    def flags(self) -> tuple[str, ...]:
        """All its flags: a switch has two."""
        return (self.flag, f"--no-{self.flag[2:]}") if self.is_switch else (self.flag,)

    @property
    def is_switch(self) -> bool:
        """Whether it is turned on and off by flags without a value."""
        return self.kind in (bool, bool | None)

    @property
    def range(self) -> Range | None:
        """The numbers that it may have."""
        number_range: Range | None = self.item.metadata["range"]
        return number_range


def option(
    default: Any,
    text: str,
    reason: str = "",
    *,
    value: str = "",
    common: bool = False,
    repeated: bool = False,
    brief: str = "",
    chosen: Iterable[Default] = (),
    least: float | None = None,
    most: float | None = None,
    above: float | None = None,
    below: float | None = None,
    example: float | None = None,
    limit: float = LIMIT,
) -> Any:
    """Return a dataclass field for an option.

    Args:
        default: its default; None if it is not needed, or chosen for the data and the machine.
        text: its meaning, without a full stop at the end.
        reason: why this is the default, or what happens without a value.
        value: what the help writes for its value, such as PATH; follows from the type if it is a number or a choice.
        common: whether the short help of a command with many options has it.
        repeated: whether its flag may be given several times, for a list; else the last one counts.
        brief: text and default in the short help, where ``text``, ``chosen`` and ``reason`` would take many lines.
        chosen: the values that replace a default of None.
        least, most, above, below, example, limit: as in :class:`Range`.
    """
    bounds = (least, most, above, below)
    number_range = None if bounds == (None,) * 4 else Range(*bounds, example, limit)
    metadata: dict[str, Any] = {"text": text, "reason": reason, "chosen": tuple(chosen), "range": number_range}
    metadata |= {"value": value, "common": common, "repeated": repeated, "brief": brief}
    if isinstance(default, list):
        values: dict[str, Any] = {"default_factory": lambda: list(default)}
    else:
        values = {"default": default}
    return field(**values, metadata=metadata)


def help_text(item: Field[Any], demo: Any = None) -> str:
    """Return what ``--help`` prints for an option: its meaning, default and reason.

    Args:
        demo: its value for the demo set, if that is another one.
    """
    text, reason = item.metadata["text"], item.metadata["reason"]
    default = item.default if item.default is not MISSING else None
    defaults = _chosen_text(item.metadata["chosen"])
    if reason and (default in (None, "") or defaults):
        defaults = "; ".join(part for part in (defaults, reason) if part)
    elif reason:
        defaults = f"{_shown(default)} ({reason})"
    elif default not in (None, "") and default is not False and not defaults:
        defaults = _shown(default)
    if demo is not None:
        defaults += f"; demo: {_shown(demo)}"
    return f"{text}. Default: {defaults}" if defaults else text


def check_ranges(options: Any) -> None:
    """Raise DataError with all numbers that are out of the range of their options."""
    wrong = []
    for item in fields(options):
        number_range, value = item.metadata.get("range"), getattr(options, item.name)
        for number in value if isinstance(value, list) else [value]:
            is_number = isinstance(number, (int, float)) and not isinstance(number, bool)
            if number_range is not None and is_number and not number_range.contains(number):
                wrong.append(f"{flag(item.name)} {_shown(value)}: it must be {number_range.expected(number)}")
                break
    if wrong:
        raise DataError("; ".join(wrong))


def flag(name: str) -> str:
    """Return the command-line flag of an option."""
    return f"--{name.replace('_', '-')}"


def _chosen_text(defaults: Iterable[Default]) -> str:
    """List defaults; those with the same condition and reason together."""
    groups: dict[tuple[str, str], list[str]] = {}
    for default in defaults:
        groups.setdefault((default.when, default.reason), []).append(_shown(default.value))
    parts = []
    for (when, reason), values in groups.items():
        text = ", ".join(values) + (f" {when}" if when else "")
        parts.append(f"{text} ({reason})" if reason else text)
    return "; ".join(parts)


def _shown(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return f"{value:g}" if isinstance(value, float) else str(value)
