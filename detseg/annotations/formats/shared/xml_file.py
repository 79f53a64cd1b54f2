"""Parse untrusted XML, without entities and document types."""

from __future__ import annotations

from pathlib import Path
from xml.etree.ElementTree import Element, ParseError

from defusedxml.common import DefusedXmlException
from defusedxml.ElementTree import fromstring

from detseg.errors import DataError

MAX_BYTES = 2**28
"""256 MiB. A parsed tree uses about ten times the memory of its text."""

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
            deeper than ``MAX_DEPTH``, or is too large.
        OSError: the file cannot be read.
    """
    size = path.stat().st_size
    if size > max_bytes:
        raise DataError(f"{name}: {size} bytes, more than the limit of {max_bytes} for one XML file; split it")
    raw = path.read_bytes()
    if not raw.strip():
        raise DataError(f"{name}: the file is empty; export it again, or remove it")
    try:
        root = fromstring(raw, forbid_dtd=True, forbid_entities=True, forbid_external=True)
    except DefusedXmlException:
        raise DataError(
            f"{name}: the XML declares a document type or an entity, which annotations do not need and which can read "
            "other files; remove the <!DOCTYPE ...> part"
        ) from None
    except (ParseError, ValueError, LookupError) as error:  # LookupError: an encoding that does not exist
        raise DataError(f"{name}: not well-formed XML ({error}); export the file again") from None
    if _is_deep(root):
        raise DataError(f"{name}: elements are nested deeper than {MAX_DEPTH}; this is not an annotation file")
    return root


def _is_deep(root: Element) -> bool:
    level = [root]
    for _ in range(MAX_DEPTH):
        level = [child for element in level for child in element]
        if not level:
            return False
    return True
