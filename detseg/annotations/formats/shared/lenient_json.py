"""Read JSON values of another type than expected where nothing is lost, and list at once what stays wrong.

Numbers in quotes, a number in a list of one, numbers as names, and empty texts, lists and objects for missing values
are read and counted. A file is read as its schema first, which is fast; only a file that does not match comes here.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from functools import cache
from math import isfinite
from typing import Any

import msgspec
from msgspec import inspect

from detseg.annotations.repair_log import NAMED, RepairLog
from detseg.errors import DataError
from detseg.json_text import JsonError, decode_json

_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?")
_WORDS = {"true": True, "false": False, "yes": True, "no": False}
_NUMBERS = (inspect.IntType, inspect.FloatType)
_SHOWN = 60  # characters of a value in a message


class Mender:
    """Converts decoded JSON to values that fit a schema.

    Args:
        source: name of the file in messages.
        names: names of the entries of top-level lists, by key, such as "annotation 7 (a.jpg)".

    Attributes:
        notes: what was read although it is written in another type.
        problems: what cannot be read.
    """

    def __init__(self, source: str, names: Mapping[str, Sequence[str]] | None = None) -> None:
        self.notes, self.problems = RepairLog(), RepairLog()
        self._source, self._names = source, names or {}
        self._repairs: list[str] = []

    def mend(self, value: Any, schema: Any) -> Any:
        """``value`` in the types of ``schema``, as values that JSON can store.

        Raises:
            DataError: all problems with their counts.
        """
        mended = self._field(value, inspect.type_info(schema), "", "")
        self.raise_problems()
        return mended

    def problem(self, kind: str, value: Any, where: str) -> None:
        """Record a value that cannot be used; ``kind`` is such as "annotations.bbox: expected 4 numbers"."""
        example = ""
        if self.problems.counts.get(kind, 0) < NAMED:  # the others are only counted
            example = f"{shortened(value)} ({where})" if where else shortened(value)
        self.problems.add(kind, example)

    def raise_problems(self) -> None:
        """Raise a DataError with all problems recorded so far; nothing if there are none."""
        if not self.problems:
            return
        lines = [
            f"{count} x {kind}, got {', '.join(self.problems.examples[kind])}"
            f"{', ...' if count > len(self.problems.examples[kind]) else ''}"
            for kind, count in self.problems.counts.items()
        ]
        several = f"{len(lines)} kinds of problems: " if len(lines) > 1 else ""
        raise DataError(f"{self._source}: {several}{'; '.join(lines)}; correct the values, or export the file again")

    def _field(self, value: Any, kind: Any, path: str, where: str) -> Any:
        """A value with a place of its own in messages; its repairs are counted once."""
        if isinstance(kind, inspect.StructType) and _fits(value, kind.cls):
            return value
        outer, self._repairs = self._repairs, []
        try:
            mended = self._value(value, kind, path, where)
            for repair in dict.fromkeys(self._repairs):
                at = f"{self._source}, {where}" if where else self._source
                self.notes.add(f"{repair} ({path})" if path else repair, at)
        except _Misfit:
            self.problem(f"{path}: expected {expected(kind)}" if path else f"expected {expected(kind)}", value, where)
            mended = value
        self._repairs = outer
        return mended

    def _value(self, value: Any, kind: Any, path: str, where: str) -> Any:
        kinds = kind.types if isinstance(kind, inspect.UnionType) else (kind,)
        for one in kinds:
            if _is_kind(value, one):
                return self._inside(value, one, path, where)
        scalar = [one for one in kinds if isinstance(one, (*_NUMBERS, inspect.BoolType))]
        if any(isinstance(one, inspect.NoneType) for one in kinds) and _is_empty(value):
            return self._repaired("empty value read as missing", None)
        if isinstance(value, list) and len(value) == 1 and scalar:
            return self._repaired("number in a list read", self._value(value[0], kind, path, where))
        if isinstance(value, str) and scalar:
            number = _number(value, whole=not any(isinstance(one, inspect.FloatType) for one in scalar))
            if number is not None and any(isinstance(one, _NUMBERS) for one in scalar):
                return self._repaired("numbers in quotes read", number)
            if value.strip().lower() in _WORDS and any(isinstance(one, inspect.BoolType) for one in scalar):
                return self._repaired("true or false in quotes read", _WORDS[value.strip().lower()])
            if number in (0, 1):
                return self._repaired("numbers in quotes read", bool(number))
        if isinstance(value, (int, float)) and not isinstance(value, bool):
            if any(isinstance(one, inspect.StrType) for one in kinds):
                return self._repaired("numbers read as text", _text(value))
            if (
                isinstance(value, float)
                and value.is_integer()
                and any(isinstance(one, inspect.IntType) for one in kinds)
            ):
                return self._value(int(value), kind, path, where)
            if value in (0, 1) and any(isinstance(one, inspect.BoolType) for one in kinds):
                return self._repaired("0 and 1 read as false and true", bool(value))
        structs = [one for one in kinds if isinstance(one, inspect.StructType)]
        if value == {} and structs:  # to say what is missing in it
            return self._object(value, structs[0], path, where)
        raise _Misfit

    def _inside(self, value: Any, kind: Any, path: str, where: str) -> Any:
        if isinstance(kind, inspect.StructType):
            return self._object(value, kind, path, where)
        if isinstance(kind, inspect.TupleType):
            if len(value) != len(kind.item_types):
                raise _Misfit
            return [self._value(item, one, path, where) for item, one in zip(value, kind.item_types, strict=True)]
        if isinstance(kind, inspect.ListType):
            if not _has_objects(kind.item_type):
                return [self._value(item, kind.item_type, path, where) for item in value]
            names = self._names.get(path, ()) if not where else ()
            return [
                self._field(item, kind.item_type, path, names[i] if i < len(names) else f"{where or path}[{i}]")
                for i, item in enumerate(value)
            ]
        if isinstance(kind, inspect.DictType):
            start = f"{where}." if where else ""
            return {key: self._field(item, kind.value_type, path, f"{start}{key}") for key, item in value.items()}
        return value

    def _object(self, value: dict[str, Any], kind: inspect.StructType, path: str, where: str) -> dict[str, Any]:
        mended, types = {}, _field_types(kind.cls)
        for one in kind.fields:
            inner = f"{path}.{one.encode_name}" if path else one.encode_name
            if one.encode_name not in value:
                if one.required:
                    self.problems.add(
                        f"{inner}: missing, expected {expected(one.type)}", f"nothing ({where})" if where else "nothing"
                    )
                continue
            item = value[one.encode_name]
            if not one.required and _is_empty(item) and not _accepts(item, one.type):
                if item is not None:
                    self.notes.add(
                        f"empty value read as missing ({inner})", f"{self._source}, {where}" if where else self._source
                    )
                continue
            fits = _fits(item, types[one.encode_name])
            mended[one.encode_name] = item if fits else self._field(item, one.type, inner, where)
        return mended

    def _repaired(self, repair: str, value: Any) -> Any:
        self._repairs.append(repair)
        return value


class _Misfit(Exception):
    """The value of a field cannot be read."""


def lenient(raw: bytes, schema: Any, source: str) -> tuple[Any, RepairLog]:
    """Decode JSON that does not match ``schema`` strictly; also the notes.

    Raises:
        DataError: not JSON, a doubled key, or all problems with their counts.
    """
    mender = Mender(source)
    try:
        mended = mender.mend(decode_json(raw, Any), schema)
        return msgspec.json.decode(encoded(mended, source), type=schema), mender.notes
    except JsonError as error:
        raise DataError(f"{source}: {error}; correct it in the file, or export the file again") from None


def encoded(value: Any, source: str) -> bytes:
    """``value`` as JSON; DataError for a number that no JSON of this project stores."""
    try:
        return msgspec.json.encode(value)
    except (OverflowError, RecursionError, ValueError) as error:
        raise DataError(f"{source}: a value that cannot be read ({error}); export the file again") from None


def expected(kind: Any) -> str:
    """What a type stands for, for messages, such as "4 numbers" or "a list of objects"."""
    kinds = kind.types if isinstance(kind, inspect.UnionType) else (kind,)
    words = []
    if any(isinstance(one, inspect.FloatType) for one in kinds):
        words.append("a number")
    elif any(isinstance(one, inspect.IntType) for one in kinds):
        words.append("a whole number")
    elif any(isinstance(one, inspect.BoolType) for one in kinds):
        words.append("true or false")
    for one in kinds:
        if isinstance(one, inspect.StrType):
            words.append("text")
        elif isinstance(one, inspect.TupleType):
            words.append(f"{len(one.item_types)} {_plural(one.item_types[0])}")
        elif isinstance(one, inspect.ListType):
            words.append(f"a list of {_plural(one.item_type)}")
        elif isinstance(one, (inspect.StructType, inspect.DictType)):
            words.append("an object")
    return " or ".join(dict.fromkeys(words)) or "another value"


def shortened(value: Any) -> str:
    """A value as JSON, shortened for a message."""
    if isinstance(value, (list, dict)) and len(value) > _SHOWN:
        value = value[:_SHOWN] if isinstance(value, list) else dict(list(value.items())[:_SHOWN])
    try:
        text = json.dumps(value, ensure_ascii=False, default=str)
    except (RecursionError, ValueError):
        text = "a value that is nested too deeply"
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."


@cache
def _field_types(struct: Any) -> dict[str, Any]:
    return {field.encode_name: field.type for field in msgspec.structs.fields(struct)}


def _fits(value: Any, kind: Any) -> bool:
    """Whether a value has the type ``kind`` as it is, which msgspec tells ten times faster than this file."""
    if type(value) is int and not -(2**63) <= value < 2**63:
        return False
    try:
        msgspec.convert(value, kind)
    except (msgspec.ValidationError, TypeError):
        return False
    return True


def _plural(kind: Any) -> str:
    kinds = kind.types if isinstance(kind, inspect.UnionType) else (kind,)
    if any(isinstance(one, (*_NUMBERS, inspect.BoolType)) for one in kinds):
        return "numbers"
    if any(isinstance(one, (inspect.StructType, inspect.DictType)) for one in kinds):
        return "objects"
    if isinstance(kind, inspect.TupleType):
        return f"{len(kind.item_types)} numbers each"
    return f"lists of {_plural(kind.item_type)}" if isinstance(kind, inspect.ListType) else "texts"


def _is_kind(value: Any, kind: Any) -> bool:
    if isinstance(kind, (inspect.AnyType, inspect.RawType)):
        return True
    if value is None:
        return isinstance(kind, inspect.NoneType)
    if isinstance(value, bool):
        return isinstance(kind, inspect.BoolType)
    if isinstance(value, int):
        return isinstance(kind, _NUMBERS) and -(2**63) <= value < 2**63
    if isinstance(value, float):
        return isinstance(kind, inspect.FloatType)
    if isinstance(value, str):
        return isinstance(kind, inspect.StrType)
    if isinstance(value, list):
        return isinstance(kind, inspect.ListType) or (
            isinstance(kind, inspect.TupleType) and len(value) == len(kind.item_types)
        )
    return isinstance(kind, (inspect.StructType, inspect.DictType)) and (
        bool(value) or not isinstance(kind, inspect.StructType) or not any(one.required for one in kind.fields)
    )


def _accepts(value: Any, kind: Any) -> bool:
    return any(_is_kind(value, one) for one in (kind.types if isinstance(kind, inspect.UnionType) else (kind,)))


def _has_objects(kind: Any) -> bool:
    kinds = kind.types if isinstance(kind, inspect.UnionType) else (kind,)
    return any(isinstance(one, (inspect.StructType, inspect.DictType)) for one in kinds)


def _is_empty(value: Any) -> bool:
    if isinstance(value, str):
        return not value.strip()
    return value is None or (isinstance(value, (list, dict)) and not value)


def _number(text: str, whole: bool) -> int | float | None:
    """The number that a text contains; None if it is none, or not whole if ``whole``."""
    text = text.strip()
    if len(text) > _SHOWN or not _NUMBER.fullmatch(text):
        return None
    number = float(text)
    if not isfinite(number):
        return None
    if number.is_integer() and abs(number) < 2**63:
        return int(text) if re.fullmatch(r"[+-]?\d+", text) else int(number)
    return None if whole else number


def _text(number: float) -> str:
    return str(int(number)) if float(number).is_integer() and abs(number) < 2**63 else str(number)
