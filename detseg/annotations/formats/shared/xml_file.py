"""Parse untrusted XML, without entities and document types, with the parsers in C: a second for 40 MB."""

from __future__ import annotations

import gc
from pathlib import Path
from typing import Any, NoReturn
from xml.etree.ElementTree import Element, ParseError, fromstring
from xml.parsers import expat

from detseg.errors import DataError
from detseg.media.files import file_size, read_bytes
from detseg.short_text import one_line

MAX_BYTES = 2**28
"""256 MiB. A parsed tree uses about ten times the memory of its text."""

MAX_ELEMENTS = 4_000_000
"""Elements in a file, and attributes; each takes up to 200 bytes of memory."""

MAX_DEPTH = 100
"""Nesting depth of elements; annotations have fewer than ten levels."""


def parse_xml(path: Path, name: str, *, max_bytes: int = MAX_BYTES) -> Element:
    """Read the root element of a file.

    Document types and entities are rejected, not expanded: they can read other files and expand to gigabytes.

    Args:
        name: name of the file in messages.
        max_bytes: a larger file is rejected without reading it.

    Raises:
        DataError: the file is not well-formed XML (with line and column), has a document type or entities, is nested
            deeper than ``MAX_DEPTH``, or is too large; or it has more than ``MAX_ELEMENTS``.
        OSError: the file cannot be read.
    """
    size = file_size(path)
    if size > max_bytes:
        raise DataError(f"{name}: {size} bytes, more than the limit of {max_bytes} for one XML file; split it")
    raw = read_bytes(path)
    if not raw.strip():
        raise DataError(f"{name}: the file is empty; export it again, or remove it")
    if raw.count(b"<") - raw.count(b"</") > MAX_ELEMENTS or raw.count(b"=") > 2 * MAX_ELEMENTS:
        raise DataError(f"{name}: more than {MAX_ELEMENTS} elements or attributes in one XML file; split it")
    try:
        _check_document_type(raw)
        root = _tree(raw)
    except _DocumentType:
        raise DataError(
            f"{name}: the XML declares a document type or an entity, which annotations do not need and which can read "
            "other files; remove the <!DOCTYPE ...> part"
        ) from None
    except (ParseError, expat.ExpatError, ValueError, LookupError) as error:  # LookupError: no such encoding
        raise DataError(f"{name}: not well-formed XML ({one_line(str(error))}); export the file again") from None
    if _is_deep(root):
        raise DataError(f"{name}: elements are nested deeper than {MAX_DEPTH}; this is not an annotation file")
    return root


class _DocumentType(Exception):
    """A document declares a type or an entity."""


def _check_document_type(raw: bytes) -> None:
    """Raise before an entity is expanded, or another file opened; the parser of the tree has no such hook."""

    def refuse(*_: Any) -> NoReturn:
        raise _DocumentType

    parser = expat.ParserCreate()
    parser.StartDoctypeDeclHandler = parser.EntityDeclHandler = refuse
    parser.UnparsedEntityDeclHandler = parser.ExternalEntityRefHandler = refuse
    parser.Parse(raw, True)


def _tree(raw: bytes) -> Element:
    """The root; without searches for cycles, which take two thirds of the time and find none in a tree."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        return fromstring(raw)
    finally:
        if was_enabled:
            gc.enable()


def _is_deep(root: Element) -> bool:
    level = [root]
    for _ in range(MAX_DEPTH):
        level = [child for element in level for child in element]
        if not level:
            return False
    return True
