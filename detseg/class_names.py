"""Read class names from options: ``bolt,nut``, names that contain commas, and ``OLD=NEW``."""

from __future__ import annotations

import json
import re
from collections.abc import Container, Iterable, Mapping, Sequence
from contextlib import suppress

from detseg.errors import DataError
from detseg.nearest import did_you_mean

Names = str | Sequence[str]
"""Names: a list, or a text with commas, in which a name with a comma stands in double quotes."""

Rename = str | Sequence[str] | Mapping[str, str]
"""New names: old -> new, one text ``OLD=NEW,OLD=NEW`` or JSON object, or several of them."""

_QUOTED = r'\s*"((?:[^"]|"")*)"\s*'
_NAME = re.compile(rf"{_QUOTED}(?:,|$)|([^,]*)(?:,|$)")
_PAIR = re.compile(rf"(?:{_QUOTED}|([^,]*?))=(?:{_QUOTED}(?:,|$)|([^,]*)(?:,|$))")


class UnknownClassError(DataError):
    """A selected class that the data does not have.

    Attributes:
        available: the classes that it has.
    """

    def __init__(self, message: str, available: Sequence[str] = ()) -> None:
        super().__init__(message)
        self.available = tuple(available)


def unknown_class(start: str, unknown: Sequence[str], available: Sequence[str]) -> UnknownClassError:
    """The error for classes that the data does not have: ``start``, the most similar name, and, if names contain
    commas, how they are written."""
    names = ", ".join(map(quoted, available)) or "none"
    similar = did_you_mean(unknown[0], available)
    commas = next((name for name in available if "," in name), "")
    hint = f"; a name with a comma stands in double quotes: --classes '{quoted(commas)}'" if commas else ""
    return UnknownClassError(f"{start}{names}{similar}{hint}", available)


def class_names(names: Names | None) -> list[str] | None:
    """The names in ``bolt,nut``, in a JSON list or in a list; None for None. ``"bolt, M6",nut`` is two names."""
    if names is None:
        return None
    if isinstance(names, str) and names.lstrip()[:1] == "[":
        with suppress(ValueError, RecursionError):
            value = json.loads(names)
            names = value if isinstance(value, list) and all(isinstance(name, str) for name in value) else names
    if isinstance(names, str):
        matches = list(_NAME.finditer(names))
        names = [match[2] if match[1] is None else _unquoted(match[1]) for match in matches]
    return [name.strip() for name in names if name.strip()]


def names_with_commas(text: str, known: Sequence[str]) -> list[str] | None:
    """The names in ``bolt, M6,nut`` without quotes, if exactly one division into ``known`` names exists; else None."""
    by_key = {_key(name): name for name in known}
    longest = max((name.count(",") + 1 for name in known), default=1)
    parts = text.split(",")
    divisions: list[list[list[str]]] = [[] for _ in parts] + [[[]]]  # of the parts from each position; at most two
    for start in reversed(range(len(parts))):
        for end in range(start + 1, min(start + longest, len(parts)) + 1):
            name = by_key.get(_key(",".join(parts[start:end])))
            divisions[start] += [] if name is None else [[name, *rest] for rest in divisions[end]]
        divisions[start] = divisions[start][:2]
    return divisions[0][0] if len(divisions[0]) == 1 else None


def quoted(name: str) -> str:
    """A name as it is written in a text with commas."""
    doubled = name.replace('"', '""')
    return f'"{doubled}"' if "," in name or name.startswith('"') else name


def new_names(rename: Rename, known: Iterable[str], source: str) -> dict[str, str]:
    """Old name -> new name, for the classes of a data set. ``bolt=nut,nut=bolt`` exchanges two names.

    Args:
        known: names that may be renamed; they decide where a text with several commas or equals signs is divided.
        source: name of the data in messages.

    Raises:
        DataError: a text of another form, or an old name that is not known.
    """
    known = list(known)
    mapping: dict[str, str] = {}
    for readings in rename_pairs(rename):
        fitting = [(name, new) for old, new in readings for name in _known_as(old, known)]
        old, new = fitting[0] if fitting else readings[0]
        if not fitting:
            available = ", ".join(known) or "none"
            similar = did_you_mean(old, known)
            raise DataError(f"--rename {old}={new}: {source} has no class {old!r}; it has {available}{similar}")
        if len(fitting) > 1:
            raise DataError(
                f"--rename {old}={new}: the old name may be {fitting[0][0]!r} or {fitting[1][0]!r}; "
                f"write {_as_json(*fitting[0])} or {_as_json(*fitting[1])}"
            )
        if mapping.setdefault(old, new) != new:
            raise DataError(f"--rename gives {old!r} two names, {mapping[old]!r} and {new!r}; give one of them")
    return mapping


def rename_pairs(rename: Rename) -> list[list[tuple[str, str]]]:
    """The pairs old, new; more than one reading where an unquoted text has several equals signs.

    Raises:
        DataError: a text of another form, or an empty name.
    """
    if isinstance(rename, Mapping):
        pairs = [[(old, new)] for old, new in rename.items()]
    else:
        texts = [rename] if isinstance(rename, str) else rename
        pairs = [readings for text in texts for readings in (_json_pairs if text.lstrip()[:1] == "{" else _pairs)(text)]
    pairs = [[(old, new.strip()) for old, new in readings] for readings in pairs]
    empty = next((readings[0] for readings in pairs if not readings[0][0].strip() or not readings[0][1]), None)
    if empty or rename == "":
        raise DataError(f"--rename {'='.join(empty or ())}: a name is missing; write OLD=NEW")
    return pairs


def old_names(names: Sequence[str], mapping: Mapping[str, str], known: Container[str] = ()) -> list[str]:
    """The names in the data of classes that are selected by their new names, in the same order."""
    selected: dict[str, None] = {}
    for name in names:
        old = [key for key, new in mapping.items() if new == name]
        if name not in mapping and (not old or name in known):
            old.append(name)
        selected |= dict.fromkeys(old)
    return list(selected)


def rename_option(old: str, new: str) -> str:
    """The option that renames a class, as it is typed."""
    if set("=,'\"{") & set(old + new):
        return _as_json(old, new)
    return f"--rename {old}={new}" if " " not in old + new else f"--rename '{old}={new}'"


def _known_as(name: str, known: Sequence[str]) -> list[str]:
    """The known names that ``name`` means: itself, else those that differ in blanks around them."""
    return [name] if name in known else [other for other in known if other.strip() == name.strip()]


def _pairs(text: str) -> list[list[tuple[str, str]]]:
    """The pairs of ``OLD=NEW,OLD=NEW``; an old name may contain commas, which no equals sign follows."""
    pairs, position = [], 0
    while position < len(text):
        match = _PAIR.match(text, position)
        if match is None:  # a comma in an old name: "bolt, M6=bolt"
            match = re.compile(r"()([^=]*)=()([^,]*)(?:,|$)").match(text, position)
            if match is None:
                rest = text[position:].strip()
                raise DataError(
                    f"--rename {text}: {rest!r} is not OLD=NEW; a name with a comma stands in double quotes, or write "
                    f"{_as_json('OLD', 'NEW')}"
                )
        old, new = match[1] or match[2] or "", match[3] or match[4] or ""
        if match[1] or match[3]:
            pairs.append([(_unquoted(old) if match[1] else old, _unquoted(new) if match[3] else new)])
        else:
            parts = f"{old}={new}".split("=")
            pairs.append([("=".join(parts[:end]).strip(), "=".join(parts[end:])) for end in range(1, len(parts))])
        position = match.end()
    return pairs


def _json_pairs(text: str) -> list[list[tuple[str, str]]]:
    try:
        pairs: list[tuple[str, object]] = json.loads(text, object_pairs_hook=list)
    except (ValueError, RecursionError) as error:
        raise DataError(f"--rename {text}: not a JSON object ({error}); write {_as_json('OLD', 'NEW')}") from None
    wrong = next((old for old, new in pairs if not isinstance(new, str)), None)
    if wrong is not None:
        raise DataError(f"--rename {text}: the new name of {wrong!r} is not a text; write {_as_json(wrong, 'NEW')}")
    return [[(old, str(new))] for old, new in pairs]


def _as_json(old: str, new: str) -> str:
    return f"--rename '{json.dumps({old: new}, ensure_ascii=False)}'"


def _unquoted(text: str) -> str:
    return text.replace('""', '"')


def _key(name: str) -> str:
    """A name without blanks around its commas."""
    return re.sub(r"\s*,\s*", ",", name.strip())
