"""JSON of labelling tools that is not read: the message names the tool and the export to choose."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.real_exports import sets
from tests.real_exports.case import Case, Refused, Right

FILES: dict[str, tuple[str, Any, str]] = {
    "Datumaro": (
        "annotations/default.json",
        {
            "info": {},
            "categories": {"label": {"labels": [{"name": "bolt"}]}},
            "items": [{"id": "1", "annotations": []}],
        },
        'Datumaro JSON.*"COCO 1.0"',
    ),
    "Labelbox": ("export.ndjson", {"data_row": {"external_id": "1.jpg"}, "projects": {}}, "Labelbox JSON.*COCO"),
    "Labelbox 2021": (
        "export.json",
        [{"ID": "a", "DataRow ID": "b", "Labeled Data": "https://x/1.jpg", "Label": {"objects": []}}],
        "Labelbox JSON",
    ),
    "V7 Darwin": (
        "1.json",
        {"version": "2.0", "schema_ref": "https://x", "item": {"name": "1.jpg"}, "annotations": []},
        'V7 Darwin JSON.*export "COCO"',
    ),
    "VoTT": (
        "project-export.json",
        {"name": "x", "assets": {"ab": {"asset": {"name": "1.jpg"}, "regions": [{"type": "RECTANGLE"}]}}},
        'VoTT JSON.*"Pascal VOC"',
    ),
    "SuperAnnotate": (
        "1.jpg.json",
        {"metadata": {"name": "1.jpg"}, "instances": [{"type": "bbox", "className": "bolt", "points": {}}]},
        "SuperAnnotate JSON.*COCO",
    ),
    "Scale": (
        "tasks.json",
        [{"task_id": "a", "response": {"annotations": [{"label": "bolt", "left": 20}]}, "params": {}}],
        "Scale AI JSON.*COCO",
    ),
    "Encord": ("export.json", [{"label_hash": "a", "data_title": "1.jpg", "data_units": {}}], 'Encord, export.*"COCO"'),
    "Hasty": ("export.json", {"project_name": "x", "export_format_version": "1.1", "images": []}, 'export "COCO"'),
    "Kili": ("export.json", [{"externalId": "1", "labels": [{"jsonResponse": {}}]}], 'Kili, export "COCO"'),
    "SageMaker": ("output.manifest", {"source-ref": "s3://x/1.jpg", "labels": {"annotations": []}}, "SageMaker"),
    "Vertex AI": ("export.jsonl", {"imageGcsUri": "gs://x/1.jpg", "boundingBoxAnnotations": []}, "Vertex AI"),
    "Cityscapes": ("1_polygons.json", {"imgHeight": 72, "imgWidth": 96, "objects": []}, "Cityscapes JSON.*masks"),
    "BDD100K": ("det_train.json", [{"name": "1.jpg", "labels": [{"box2d": {"x1": 1}}]}], "BDD100K JSON.*COCO"),
}


def write(name: str, content: Any) -> Callable[[Path], None]:
    def write_all(root: Path) -> None:
        sets.image(root / "images/1.jpg")
        sets.put(root / name, json.dumps(content))

    return write_all


def mend(name: str) -> Callable[[Path], None]:
    def export_coco(root: Path) -> None:
        (root / name).unlink()
        sets.coco(root, {"1.jpg": [{"bbox": [20, 20, 30, 30], "area": 900}]}, ["bolt"])

    return export_coco


RIGHT = Right({"1.jpg": [("bolt", (20.0, 20.0, 50.0, 50.0))]})
CASES = [
    Case("other tool", tool, write(name, content), Refused(message, RIGHT, mend(name)))
    for tool, (name, content, message) in FILES.items()
]
