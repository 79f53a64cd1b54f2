"""Recognize JSON of labelling tools that is not read, by its beginning, and say what to export instead."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from detseg.media.files import open_file

SUFFIXES = (".json", ".ndjson", ".jsonl", ".manifest")

HEAD = 2**16
"""Bytes of a file that are searched; nothing is parsed, so depth and size do not matter."""

FILES = 40
"""Files of a folder that are opened."""


@dataclass(frozen=True)
class _Tool:
    """JSON of a tool: it begins with ``start`` ("[", "{"), and contains a match of each of ``keys``."""

    name: str
    start: str
    keys: tuple[str, ...]
    export: str


def _key(*names: str) -> str:
    return rf'"(?:{"|".join(map(re.escape, names))})"\s*:'


_TOOLS = (
    _Tool(
        "Datumaro JSON",
        "{",
        (_key("categories"), _key("items"), _key("info", "dm_format_version", "infos")),
        'in CVAT or Datumaro, export "COCO 1.0", "CVAT for images 1.1", "YOLO" or "Pascal VOC" '
        "(datum convert -i . -f coco_instances)",
    ),
    _Tool(
        "Labelbox JSON",
        "[{",
        (_key("data_row"), _key("projects", "media_attributes", "attachments")),
        "convert it to COCO with a tool that reads it, such as Roboflow or FiftyOne (fiftyone.utils.labelbox)",
    ),
    _Tool(
        "Labelbox JSON",
        "[{",
        (_key("DataRow ID", "Labeled Data", "External ID"), _key("Label")),
        "convert it to COCO with a tool that reads it, such as Roboflow or FiftyOne (fiftyone.utils.labelbox)",
    ),
    _Tool(
        "V7 Darwin JSON",
        "{",
        (_key("annotations"), r'"schema_ref"\s*:|"item"\s*:\s*\{|"dataset"\s*:'),
        'in V7 Darwin, export "COCO", or convert it (darwin convert coco)',
    ),
    _Tool(
        "VoTT JSON",
        "{",
        (_key("assets"), _key("asset", "regions", "videoSettings", "securityToken", "lastVisitedAssetId")),
        'in VoTT, export "Pascal VOC" or "CSV"',
    ),
    _Tool(
        "SuperAnnotate JSON",
        "{",
        (_key("metadata"), _key("instances"), _key("className", "classId", "lastAction")),
        "convert it to COCO with SuperAnnotate's Python SDK (sa.export_annotation)",
    ),
    _Tool(
        "Scale AI JSON",
        "[{",
        (_key("task_id"), _key("response", "callback_url"), _key("annotations", "params")),
        "convert it to COCO: each of response.annotations has left, top, width, height",
    ),
    _Tool(
        "Encord JSON",
        "[{",
        (_key("label_hash"), _key("data_units", "data_hash")),
        'in Encord, export the labels as "COCO"',
    ),
    _Tool(
        "Hasty JSON",
        "{",
        (_key("project_name"), _key("export_format_version", "label_classes")),
        'in Hasty (CloudFactory), export "COCO", "Pascal VOC" or "YOLO"',
    ),
    _Tool("Kili JSON", "[{", (_key("jsonResponse"), _key("labels", "latestLabel")), 'in Kili, export "COCO" or "YOLO"'),
    _Tool(
        "Amazon SageMaker Ground Truth manifest",
        "{",
        (_key("source-ref"),),
        "convert it to COCO: each line has image_size and annotations with left, top, width, height and class_id",
    ),
    _Tool(
        "Google Vertex AI JSON Lines",
        "{",
        (_key("imageGcsUri"),),
        "convert it to COCO: each box has xMin, yMin, xMax, yMax as shares of the image",
    ),
    _Tool(
        "Cityscapes JSON",
        "{",
        (_key("imgHeight"), _key("imgWidth"), _key("objects")),
        "use its masks (*_instanceIds.png or *_labelIds.png), or convert it to COCO",
    ),
    _Tool(
        "BDD100K JSON",
        "[{",
        (_key("labels"), _key("box2d", "poly2d")),
        "convert it to COCO with the bdd100k toolkit (bdd100k.label.to_coco)",
    ),
)


def other_tool(raw: bytes) -> str:
    """The tool that wrote this text, and what to export instead; "" if it is none that is known.

    Args:
        raw: the file, or its beginning.
    """
    text = raw[:HEAD].removeprefix(b"\xef\xbb\xbf").decode("utf-8", "replace").lstrip()
    start = re.sub(r"\s+", "", text[:200])
    for tool in _TOOLS:
        begins = start.startswith(tool.start[0]) or (len(tool.start) == 2 and start.startswith(tool.start[1]))
        if begins and all(re.search(key, text) for key in tool.keys):
            return f"{tool.name}, which is not read; {tool.export}, and pass that"
    return ""


def find_other_tool(root: Path, files: Sequence[str]) -> str:
    """The same for a folder: file and tool; "" if no file is of a known tool. At most ``FILES`` files are opened."""
    candidates = [file for file in files if PurePosixPath(file).suffix.lower() in SUFFIXES]
    for file in sorted(candidates, key=lambda file: (file.count("/"), file))[:FILES]:
        with open_file(root / file) as stream:
            tool = other_tool(stream.read(HEAD))
        if tool:
            return f"{file} is {tool}"
    return ""
