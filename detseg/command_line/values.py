"""Convert the text of an option to its type; the message for a wrong value states what is expected."""

from __future__ import annotations

import math
from types import NoneType
from typing import Any, Literal, get_args, get_origin

from detseg.errors import DataError
from detseg.nearest import did_you_mean, either
from detseg.options.field import Option


def from_text(option: Option, text: str) -> Any:
    """Return the value of ``option`` that ``text`` from the command line means.

    Raises:
        DataError: it has another type, or is not one of the choices. Ranges are checked by the config.
    """
    value = _plain(option, text)
    return checked(option, value, f"{option.flag} {text}")


def checked(option: Option, value: Any, name: str) -> Any:
    """Return ``value`` if it has the type of ``option``, whole numbers as float where the type is; else DataError.

    Args:
        name: the beginning of the message.
    """
    if not _fits(value, option.kind):
        raise DataError(f"{name}: it must be {expected(option)}{_nearest_choice(option, value)}")
    parts = alternatives(option.kind)
    if float in parts and type(value) is int:
        return _as_float(value)
    return [_as_float(item) for item in value] if list[float] in parts and isinstance(value, list) else value


def _as_float(value: float) -> float:
    """A number as float; infinite, which no range contains, if it is too large for one."""
    try:
        return float(value)
    except OverflowError:
        return math.inf if value > 0 else -math.inf


def alternatives(kind: Any) -> tuple[Any, ...]:
    """The types of a union, without None; of another type, the type itself."""
    if get_origin(kind) in (Literal, list, dict) or not get_args(kind):
        return (kind,)
    return tuple(part for part in get_args(kind) if part is not NoneType)


def choices(kind: Any) -> list[str]:
    """The words that a value of this type may be; empty if it is free."""
    return [str(word) for part in alternatives(kind) if get_origin(part) is Literal for word in get_args(part)]


def listed_choices(kind: Any) -> list[str]:
    """The words of which a value of this type may be a list; empty if they are free."""
    return [
        word for part in alternatives(kind) if get_origin(part) is list for word in choices(get_args(part)[0])
    ]  # fmt: skip


def expected(option: Option) -> str:
    """What the values of an option are, in words: for messages."""
    parts = alternatives(option.kind)
    words = choices(option.kind)
    if bool in parts:
        return "true or false"
    if int in parts or float in parts:
        text = _number_text("a whole number" if int in parts else "a number", option)
        return ", or ".join([text, *words])
    if list[int] in parts or list[float] in parts:
        what = "whole numbers" if list[int] in parts else "numbers"
        return f"a list of {what}, such as [3,20]"
    if words:
        return either(words)
    if listed := listed_choices(option.kind):
        return f"{either(listed)}, or several with commas"
    if dict[str, str] in parts:
        return "OLD=NEW, a list of such texts, or a table of texts"
    return "a list of texts, or a text with commas" if list[str] in parts else "text in quotes"


def shown(value: Any) -> str:
    """A value as in TOML."""
    import json  # help does not need it

    try:
        return json.dumps(value, ensure_ascii=False)
    except TypeError:
        return str(value)  # dates and times


def _number_text(what: str, option: Option) -> str:
    bounds = option.range
    if bounds is None:
        return f"{what}, such as {_example(option)}"
    limits = str(bounds).partition(", such as ")[0]
    between = " " if limits.startswith("a number ") else ", "
    return f"{what}{between}{limits.removeprefix('a number ')}, such as {_example(option)}"


def _example(option: Option) -> str:
    """A number that the option may have: a default, or one from the range."""
    bounds = option.range
    candidates = [default.value for default in option.item.metadata["chosen"]]
    candidates += [option.item.default] + ([bounds.example, bounds.least] if bounds else [])
    for value in candidates:
        is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
        if is_number and value != 0 and (bounds is None or bounds.contains(value)):
            return f"{value:g}"
    return "1"


def _nearest_choice(option: Option, value: Any) -> str:
    words = choices(option.kind) or listed_choices(option.kind)
    wrong = [item for item in (value if isinstance(value, list) else [value]) if item not in words]
    return did_you_mean(wrong[0], words) if wrong and isinstance(wrong[0], str) else ""


def _fits(value: Any, kind: Any) -> bool:
    """Whether a value has a type; a whole number is also a float, but true and false are no numbers."""
    if get_origin(kind) is Literal:
        return isinstance(value, str) and value in get_args(kind)
    if get_origin(kind) is list:
        return isinstance(value, list) and all(_fits(item, get_args(kind)[0]) for item in value)
    if get_origin(kind) is dict:
        return isinstance(value, dict) and all(_fits(item, get_args(kind)[1]) for item in value.values())
    if get_args(kind):
        return any(_fits(value, part) for part in get_args(kind))
    if kind is float:
        return type(value) in (int, float)
    return type(value) is kind


def _plain(option: Option, text: str) -> Any:
    """Text as a number, list, None or text, whichever a value of the option can be."""
    parts = alternatives(option.kind)
    lists = [get_args(part)[0] for part in parts if get_origin(part) is list]
    if text == "null" and _fits(None, option.kind):
        return None
    if int in parts or float in parts:
        return _number(text)
    if lists and (str not in lists or (text.startswith("[") and text.endswith("]"))):
        return _list(text, lists[0])
    return text


def _list(text: str, kind: type) -> Any:
    """``[1,2]``, ``["a","b"]``, ``[a,b]``, and numbers also without brackets."""
    import json

    inner = text[1:-1] if text.startswith("[") and text.endswith("]") else text
    try:
        return json.loads(f"[{inner}]")
    except ValueError:
        items = [item.strip() for item in inner.split(",")]
    return items if kind is str or get_origin(kind) is Literal else [_number(item) for item in items]


def _number(text: str) -> Any:
    """Text as a number, or the text if it is none."""
    for read in (int, float):
        try:
            return read(text)
        except ValueError:
            continue
    return text
