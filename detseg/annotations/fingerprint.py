"""What data is, in a few numbers: so that a run that goes on can say that its data is another."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

import numpy as np

from detseg.annotations.table import AnnotationTable

Fingerprint = dict[str, Any]


def fingerprint(splits: Mapping[str, AnnotationTable]) -> Fingerprint:
    """Classes, and of each part the number of images and objects and the sha256 of everything that is learned from.

    The images' own bytes are not read: that would take as long as an epoch. Their names and sizes are in the sum.
    """
    first = next(iter(splits.values()))
    parts = {
        name: {
            "images": len(table),
            "objects": int(table.instances_per_image().sum()),
            "sha256": _sum(table),
        }
        for name, table in splits.items()
    }
    return {"classes": list(first.class_map.names), "parts": parts}


def differences(before: Fingerprint, now: Fingerprint) -> list[str]:
    """What changed, in words; empty if nothing did."""
    found = []
    if before["classes"] != now["classes"]:
        found.append(f"the classes were {', '.join(before['classes'])} and are {', '.join(now['classes'])}")
    for name in sorted({*before["parts"], *now["parts"]}):
        old, new = before["parts"].get(name), now["parts"].get(name)
        if old is None or new is None:
            found.append(f"there {'was no' if old is None else 'is no longer a'} part {name}")
        elif old["sha256"] != new["sha256"]:
            counts = [f"{part['images']} images, {part['objects']} objects" for part in (old, new)]
            same = "the same numbers, but other names, sizes or annotations"
            change = f"{counts[0]}, now {counts[1]}" if counts[0] != counts[1] else same
            found.append(f"{name}: {change}")
    return found


def _sum(table: AnnotationTable) -> str:
    digest = hashlib.sha256()
    for record in table:
        digest.update(f"{record.name}\0{record.size_hw}\0{record.orientation}\0{record.image_id}\0".encode())
        columns = (
            record.boxes_xywh,
            record.labels,
            record.iscrowd,
            record.ignore,
            record.class_index,
            record.keypoints,
        )
        for column in columns:
            digest.update(b"-" if column is None else np.ascontiguousarray(column).tobytes())
        digest.update(repr(record.areas.tolist()).encode())
    return digest.hexdigest()
