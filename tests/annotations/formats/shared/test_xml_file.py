"""Untrusted XML: an element tree or one clear message; nothing is expanded or fetched."""

from __future__ import annotations

import time
from pathlib import Path
from xml.etree.ElementTree import fromstring

import pytest

from detseg.annotations.formats.shared.xml_file import MAX_DEPTH, parse_xml
from detseg.errors import DataError

LAUGHS = (
    b"""<?xml version="1.0"?><!DOCTYPE a [<!ENTITY a "ha"><!ENTITY b "&a;&a;&a;&a;">]><annotation>&b;</annotation>"""
)


def write(folder: Path, content: bytes) -> Path:
    path = folder / "a.xml"
    path.write_bytes(content)
    return path


@pytest.mark.parametrize(
    ("content", "text"),
    [
        (b"<a/>", None),
        (b"<a>b</a>", "b"),
        (b'\xef\xbb\xbf<?xml version="1.0"?><a>b</a>', "b"),
        ("<a>Straße 猫</a>".encode(), "Straße 猫"),
        ('<?xml version="1.0" encoding="utf-16"?><a>é</a>'.encode("utf-16"), "é"),
        ('<?xml version="1.0" encoding="iso-8859-1"?><a>é</a>'.encode("latin-1"), "é"),
        (b"<a><!-- a comment -->&lt;&#233;</a>", "<é"),
        (b"<x>" * (MAX_DEPTH - 1) + b"</x>" * (MAX_DEPTH - 1), None),
    ],
)
def test_good_files(tmp_path: Path, content: bytes, text: str | None) -> None:
    assert parse_xml(write(tmp_path, content), "a.xml").text == text


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "the file is empty"),
        (b" \n", "the file is empty"),
        (b"<a><b></a>", "mismatched tag: line 1"),
        (b"<annotation><object><name>ca", "line 1, column"),
        (b"<a>\xff</a>", "not well-formed"),
        (b'<?xml version="1.0" encoding="klingon"?><a/>', "not well-formed"),
        (b"<a>&other;</a>", "not well-formed"),
        (LAUGHS, "document type"),
        (b'<!DOCTYPE a SYSTEM "http://127.0.0.1/x.dtd"><a/>', "document type"),
        (b'<!DOCTYPE a [<!ENTITY x SYSTEM "file:///etc/hostname">]><a>&x;</a>', "document type"),
        (b"\x89PNG\r\n", "not well-formed"),
        (b"<x>" * (MAX_DEPTH + 2) + b"</x>" * (MAX_DEPTH + 2), "deeper than"),
    ],
)
def test_one_clear_message(tmp_path: Path, content: bytes, message: str) -> None:
    with pytest.raises(DataError, match=message) as error:
        parse_xml(write(tmp_path, content), "part/a.xml")
    assert str(error.value).startswith("part/a.xml: ")


def test_control_the_standard_parser_expands_entities() -> None:
    assert fromstring(LAUGHS).text == "hahahaha"


def test_deep_files_are_rejected_quickly(tmp_path: Path) -> None:
    path = write(tmp_path, b"<x>" * 10_000 + b"</x>" * 10_000)
    start = time.perf_counter()
    with pytest.raises(DataError):
        parse_xml(path, "a.xml")
    assert time.perf_counter() - start < 2


def test_large_files_are_rejected_without_reading(tmp_path: Path) -> None:
    path = write(tmp_path, b"<a/>" + b" " * 100)
    assert parse_xml(path, "a.xml", max_bytes=104).tag == "a"
    with pytest.raises(DataError, match="104 bytes, more than the limit of 103"):
        parse_xml(path, "a.xml", max_bytes=103)


def test_a_missing_file_is_an_os_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        parse_xml(tmp_path / "a.xml", "a.xml")
