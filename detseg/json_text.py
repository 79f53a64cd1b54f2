"""Decode JSON of untrusted files as typed values; every fault is one short line, and doubled keys are a fault."""

from __future__ import annotations

import json
from typing import Any, TypeVar

import msgspec

from detseg.errors import reason_of
from detseg.short_text import one_line

MAX_CHECKED_BYTES = 2**24
"""Doubled keys are searched in texts of up to 16 MiB, which takes 0.3 s; programs wrote the larger ones."""

T = TypeVar("T")


class JsonError(ValueError):
    """A text is not JSON, or not of the expected type.

    Attributes:
        is_json: False for a text that is not JSON at all, or that nothing can read: too deep, numbers too long.
        at: where the value is, such as ``$.shapes[3].points``; "" if unknown.
    """

    def __init__(self, problem: str, *, is_json: bool = False, at: str = "") -> None:
        super().__init__(one_line(problem))
        self.is_json, self.at = is_json, one_line(at)


def decode_json(raw: bytes, kind: type[T] | Any, *, check_keys: bool = True) -> T:
    """Decode a text; a byte order mark is accepted, NaN and Infinity are not JSON.

    Args:
        raw: the text.
        kind: a type that msgspec decodes.
        check_keys: search for doubled keys, of which a decoder would silently use the last.

    Raises:
        JsonError: it is not JSON or not of this type.
    """
    try:
        value: T = msgspec.json.decode(raw.removeprefix(b"\xef\xbb\xbf"), type=kind)
        if check_keys:
            check_doubled_keys(raw)
        return value
    except msgspec.ValidationError as error:
        problem, _, path = str(error).partition(" - at ")
        problem = reason_of(error) if problem == "Integer value out of range" else problem
        raise JsonError(problem, is_json=True, at=path.strip("`")) from None
    except JsonError:
        raise
    except (ValueError, msgspec.MsgspecError, RecursionError, OverflowError) as error:
        raise JsonError(problem_of(error)) from None


def check_doubled_keys(raw: bytes) -> None:
    """Raise JsonError if an object in valid JSON of up to ``MAX_CHECKED_BYTES`` has a key twice."""
    if len(raw) > MAX_CHECKED_BYTES:
        return

    def check(pairs: list[tuple[str, Any]]) -> None:
        if len(pairs) > 1:
            keys = [key for key, _ in pairs]
            if len(set(keys)) < len(keys):
                first = next(key for key in keys if keys.count(key) > 1)
                raise JsonError(f"the key {first!r} occurs twice in one object; remove one", is_json=True)

    try:  # the values are not needed: numbers become their lengths
        json.loads(raw, object_pairs_hook=check, parse_int=len, parse_float=len, parse_constant=len)
    except JsonError:
        raise
    except (ValueError, RecursionError) as error:  # in parts that the expected type has not
        raise JsonError(problem_of(error)) from None


def problem_of(error: Exception) -> str:
    """What is wrong with a text, from an exception of a decoder."""
    if isinstance(error, json.JSONDecodeError):
        return f"not JSON, line {error.lineno}, column {error.colno}"
    if isinstance(error, RecursionError):
        return "brackets are nested too deeply"
    return reason_of(error)
