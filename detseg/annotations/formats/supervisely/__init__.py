"""Supervisely projects: a JSON file for each image."""

from __future__ import annotations

from detseg.annotations.formats.format import Format, reads_path
from detseg.annotations.formats.supervisely.read import find_supervisely, read_supervisely

FORMAT = Format(
    name="supervisely",
    find=find_supervisely,
    read=reads_path(read_supervisely),
    write=None,
    suffixes=(".json",),
    help="a Supervisely project: meta.json, and in each dataset ann/<image>.json and img/<image>",
)
