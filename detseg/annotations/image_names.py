"""Compare image names that labelling tools, other systems and web servers write differently."""

from __future__ import annotations

import base64
import binascii
import os
import re
import unicodedata
from collections.abc import Iterator
from urllib.parse import parse_qsl, unquote, urlsplit

from detseg.annotations.listing import is_image

MOVED = "image with a path of another machine found by its file name"
URL = "image of a URL found by its path"
PERCENT = "image found by its percent-decoded name"
UPLOAD = "image found without the prefix that Label Studio adds to uploaded files"
SPELLING = "image found under a name with other upper and lower case or blanks"

_UPLOAD_PREFIX = re.compile(r"^[0-9a-f]{8}-(?=.)")


def spellings(name: str) -> Iterator[tuple[str, str]]:
    """(path, reason) of each path that ``name`` may stand for, the most specific first; the reason is "" for ``name``
    itself.

    A web address stands for the file in its query (Label Studio: ``/data/local-files/?d=set/a.png`` and, in base64,
    ``?fileuri=...``) or for its path.
    """
    if "?" in name or "://" in name:
        try:
            address = urlsplit(name)
        except ValueError:  # not an address after all
            address = urlsplit("")
        for _, value in parse_qsl(address.query):
            yield from ((path, URL) for path in (value, _decoded_base64(value)) if is_image(path))
        if is_image(address.path) and address.query:
            yield address.path, URL
            yield unquote(address.path), URL
    yield name, ""
    if "%" in name:
        yield unquote(name), PERCENT
    _, _, file = name.replace("\\", "/").rpartition("/")
    without_prefix = _UPLOAD_PREFIX.sub("", file)
    if without_prefix != file:
        yield without_prefix, UPLOAD
        yield without_prefix.replace("_", " "), UPLOAD


def normalized(name: str) -> str:
    """A path with one Unicode form: macOS stores "e" and an accent, others "é"."""
    return unicodedata.normalize("NFC", name)


def folded(name: str) -> str:
    """A path without the differences of upper and lower case and of blanks."""
    return "/".join(" ".join(part.split()) for part in normalized(name).casefold().split("/"))


def path_parts(name: str) -> tuple[list[str], bool]:
    """Folders and file of a path of any system, and whether a root, a drive or the part before ``..`` was removed."""
    path = normalized(name).replace("\\", "/")
    parts = [part for part in path.split("/") if part not in ("", ".")]
    cut = path.startswith("/") or ".." in parts
    while ".." in parts:
        parts = parts[parts.index("..") + 1 :]
    if parts and parts[0].endswith(":"):  # C: or file:
        return parts[1:], True
    return parts, cut


def is_below(path: str) -> bool:
    """Whether a path as written stays below the folder that it is relative to."""
    parts = os.path.normpath(path.replace("\\", "/")).replace(os.sep, "/").split("/")
    return bool(path) and "\0" not in path and ".." not in parts and parts[0] != "" and not parts[0].endswith(":")


def _decoded_base64(value: str) -> str:
    try:
        return base64.b64decode(value, validate=True).decode("utf-8")
    except (binascii.Error, ValueError):
        return ""


def has_parts(file: str, by_stem: bool, tail: list[str]) -> bool:
    """Whether a path ends with the folders and the file ``tail``, which has no suffix if ``by_stem``."""
    parts = file.split("/")
    if by_stem:
        parts[-1] = parts[-1].rpartition(".")[0]
    return parts[-len(tail) :] == tail
