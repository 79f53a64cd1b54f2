"""Decide which attribute of VIA's regions or files holds the class: by the values that it has."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from detseg.annotations.formats.shared.shapes import ONLY_CLASS
from detseg.annotations.repair_log import RepairLog
from detseg.errors import DataError
from detseg.nearest import did_you_mean

CLASS_ATTRIBUTES = ("class", "label", "name", "type", "category", "class_name", "object", "object_name")
"""Attributes that hold the class if they are filled, in order of preference."""

FEW = 20
"""Filled values up to which all of them may differ; a longer list of different texts is remarks, not classes."""

FILLED, RIVAL = 0.5, 0.9
"""Shares of the values of the attribute with most of them: from ``FILLED`` a usual name counts; from ``RIVAL`` another
attribute could as well be the class."""

_NO_CLASS = ("", "undefined", "not_defined", "none", "null")
_UNKNOWN = ("unknown", "default")


@dataclass(frozen=True)
class _Attribute:
    """The values of one attribute: of each region that has a value, one text, or several for a checkbox."""

    name: str
    values: list[tuple[str, ...]]
    defaults: Collection[str]
    has_options: bool

    @property
    def is_usual(self) -> bool:
        return self.name.lower() in CLASS_ATTRIBUTES

    @property
    def is_class_like(self) -> bool:
        """Whether the values distinguish objects: neither mostly several, nor never changed, nor remarks."""
        number, texts = len(self.values), {text for value in self.values for text in value}
        several = sum(len(value) > 1 for value in self.values)
        unchanged = texts <= set(_UNKNOWN) or (not self.is_usual and texts <= set(self.defaults))
        remarks = not self.has_options and number >= FEW and 2 * len(texts) > number
        return 2 * several <= number and not unchanged and not remarks


def choose_attribute(
    attributes: Sequence[Mapping[str, Any]],
    definitions: Mapping[str, Any],
    stated: str | None,
    source: str,
    notes: RepairLog,
    unit: str = "region",
) -> str | None:
    """The name of the attribute with the class; None if no attribute has a value.

    It is the filled attribute with a usual name, else the one that is filled most often. Values such as not_defined
    are none; an attribute that was left at its default, a checkbox with several values and remarks come last.

    Args:
        attributes: name -> value of each region or file.
        definitions: name -> the project's definition of an attribute: its options and defaults.
        stated: the name that the user states.
        source: name of the data in messages.
        notes: the choice is noted if there were several, or if the name is not a usual one.
        unit: what has the attributes.

    Raises:
        DataError: ``stated`` is no filled attribute, or two attributes may as well be the class.
    """
    filled = _filled(attributes, definitions)
    if stated is not None:
        return _stated(stated, filled, {name for values in attributes for name in values}, source, unit)
    if not filled:
        return None
    candidates = [attribute for attribute in filled if attribute.is_class_like] or filled
    most = max(len(attribute.values) for attribute in candidates)
    usual = [item for item in candidates if item.is_usual and len(item.values) >= FILLED * most]
    usual.sort(key=lambda item: CLASS_ATTRIBUTES.index(item.name.lower()))
    rivals = [item for item in candidates if len(item.values) >= RIVAL * most]
    if not usual and len(rivals) > 1:
        described = "; ".join(_described(item) for item in rivals)
        raise DataError(
            f"{source}: {len(rivals)} {unit} attributes may be the class ({described}); pass --class-attribute "
            f"{rivals[0].name}, or the name of another one"
        )
    chosen = usual[0] if usual else max(candidates, key=lambda item: len(item.values))
    others = [item.name for item in candidates if item is not chosen]
    if others or not usual:
        more = f"; also filled: {', '.join(others)} (--class-attribute NAME selects another)" if others else ""
        notes.add(f"{unit} attribute used as the class", f"{chosen.name} ({source}){more}")
    return chosen.name


def is_class(text: str) -> bool:
    """Whether a value is a class, and not one of the words for none."""
    return text.lower() not in _NO_CLASS


def class_of(attributes: Mapping[str, Any], name: str, where: str, notes: RepairLog) -> str:
    """The value of the attribute ``name`` as text, "" for none; a checkbox stores its checked options as a dict of
    true.

    Raises:
        DataError: several options are checked.
    """
    texts = values_of(attributes.get(name))
    if len(texts) > 1:
        raise DataError(
            f"{where}: {name} has several values ({', '.join(texts)}); select only one, or pass another attribute with "
            "--class-attribute"
        )
    text = texts[0] if texts else ""
    if text and not is_class(text):
        notes.add(f"value {text!r} of {name} read as no class", where)
        return ""
    return text


def note_only_class(attributes: Sequence[Mapping[str, Any]], source: str, notes: RepairLog) -> None:
    """Note that no region has a class, so that all of them have the only class "object"."""
    reason = "regions without attributes" if not any(attributes) else "region attributes without any value"
    notes.add(
        f"{reason}: all instances have the class {ONLY_CLASS!r}", f"{source} (--rename {ONLY_CLASS}=NAME renames it)"
    )


def _filled(attributes: Sequence[Mapping[str, Any]], definitions: Mapping[str, Any]) -> list[_Attribute]:
    """The attributes that have a value anywhere, in the order of their first appearance."""
    values: dict[str, list[tuple[str, ...]]] = {}
    for mapping in attributes:
        for name, value in mapping.items():
            texts = tuple(text for text in values_of(value) if is_class(text))
            if texts:
                values.setdefault(name, []).append(texts)
    filled = []
    for name, texts_of_name in values.items():
        definition = definitions.get(name)
        definition = definition if isinstance(definition, dict) else {}
        defaults = [*values_of(definition.get("default_options")), *values_of(definition.get("default_value"))]
        filled.append(_Attribute(name, texts_of_name, defaults, bool(definition.get("options"))))
    return filled


def _stated(stated: str, filled: Sequence[_Attribute], names: Collection[str], source: str, unit: str) -> str:
    by_name = {item.name.lower(): item.name for item in filled} | {item.name: item.name for item in filled}
    name = by_name.get(stated) or by_name.get(stated.lower())
    if name is None:
        problem = "has no value" if stated in names else "does not exist"
        described = "; ".join(_described(item) for item in filled) or "none"
        similar = did_you_mean(stated, [item.name for item in filled])
        raise DataError(
            f"{source}: --class-attribute {stated}: this {unit} attribute {problem}; with values: {described}{similar}"
        )
    return name


def _described(attribute: _Attribute) -> str:
    texts = list(dict.fromkeys(text for value in attribute.values for text in value))
    shown = ", ".join(text if len(text) <= 20 else f"{text[:17]}..." for text in texts[:3])
    return f"{attribute.name}: {shown}{', ...' if len(texts) > 3 else ''}"


def values_of(value: Any) -> list[str]:
    """The values of an attribute as texts: one, the checked options of a checkbox, or none."""
    if isinstance(value, dict):
        return [str(key).strip() for key, on in value.items() if on in (True, "true", 1)]
    return [] if value is None else [str(value).strip()]
