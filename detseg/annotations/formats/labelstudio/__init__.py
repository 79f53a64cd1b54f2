"""Label Studio's JSON and JSON-MIN."""

from __future__ import annotations

from detseg.annotations.formats.format import Format, reads_path
from detseg.annotations.formats.labelstudio.read import find_labelstudio, read_labelstudio

FORMAT = Format(
    name="labelstudio",
    find=find_labelstudio,
    read=reads_path(read_labelstudio),
    write=None,
    suffixes=(".json",),
    help='Label Studio\'s export "JSON" or "JSON-MIN"',
)
