"""Parse untrusted YAML into text, lists and dicts, with the parser in C where PyYAML has it."""

from __future__ import annotations

from typing import Any

import yaml

from detseg.errors import DataError
from detseg.short_text import one_line

MAX_DEPTH = 20
"""Levels of nested lists; a data.yaml has three."""

_LOADER: Any = getattr(yaml, "CBaseLoader", yaml.BaseLoader)  # creates only str, list and dict


def parse_yaml(text: str, name: str) -> Any:
    """The only document of a text; all scalars are text, so a class name may be ``no`` or ``1``.

    Args:
        name: name of the file in messages.

    Raises:
        DataError: not YAML; an alias, whose printed size can be exponential; nested deeper than ``MAX_DEPTH``, which
            takes quadratic time; or a key that occurs twice in a mapping.
    """
    try:
        _check_events(text, name)
        loader = _LOADER(text)
        try:
            node = loader.get_single_node()
            _check_keys(node, name)
            return None if node is None else loader.construct_document(node)
        finally:
            loader.dispose()
    except (yaml.YAMLError, ValueError, OverflowError, RecursionError, TypeError) as error:
        if isinstance(error, DataError):
            raise
        if "nesting depth" in str(error):  # the parser in C reads ahead
            raise _too_deep(name) from None
        raise DataError(f"{name}: not YAML ({one_line(' '.join(str(error).split()))}); correct it") from None


def _check_events(text: str, name: str) -> None:
    depth = 0
    for event in yaml.parse(text, Loader=_LOADER):
        if isinstance(event, yaml.AliasEvent):
            raise DataError(f"{name}: contains a YAML alias (*{event.anchor}); replace it by its value")
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if depth > MAX_DEPTH:
            raise _too_deep(name)


def _too_deep(name: str) -> DataError:
    return DataError(f"{name}: lists are nested deeper than {MAX_DEPTH} levels; this is not a data.yaml")


def _check_keys(node: Any, name: str) -> None:
    if isinstance(node, yaml.SequenceNode):
        for item in node.value:
            _check_keys(item, name)
    if isinstance(node, yaml.MappingNode):
        lines: dict[str, int] = {}
        for key, value in node.value:
            _check_keys(value, name)
            line = key.start_mark.line + 1
            if isinstance(key, yaml.ScalarNode) and key.value in lines:
                raise DataError(
                    f"{name}, line {line}: the key {key.value!r} is in line {lines[key.value]}, too; remove one"
                )
            if isinstance(key, yaml.ScalarNode):
                lines[key.value] = line
