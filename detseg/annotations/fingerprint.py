"""Compute a short fingerprint of the data, so that a resumed run can report that its data has changed."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

import numpy as np

from detseg.annotations.table import AnnotationTable

Fingerprint = dict[str, Any]


def fingerprint(splits: Mapping[str, AnnotationTable]) -> Fingerprint:
    """Class names, and for each split the number of images and instances and a sha256 of all annotations.

    The bytes of the images are not read: that would take as long as an epoch. Their names and sizes are hashed.
    """
    first = next(iter(splits.values()))
    parts = {
        name: {
            "images": len(table),
            "objects": int(table.instances_per_image().sum()),
            "sha256": _checksum(table),
        }
        for name, table in splits.items()
    }
    return {"classes": list(first.class_map.names), "parts": parts}


def differences(before: Fingerprint, now: Fingerprint) -> list[str]:
    """Describe what has changed, one message per change; empty if nothing has."""
    messages = []
    if before["classes"] != now["classes"]:
        messages.append(f"the classes were {', '.join(before['classes'])} and are now {', '.join(now['classes'])}")
    for name in sorted({*before["parts"], *now["parts"]}):
        old, new = before["parts"].get(name), now["parts"].get(name)
        if old is None or new is None:
            messages.append(f"there {'was no' if old is None else 'is no longer a'} split {name}")
        elif old["sha256"] != new["sha256"]:
            counts = [f"{split['images']} images, {split['objects']} instances" for split in (old, new)]
            same = "the same counts, but different names, sizes or annotations"
            change = f"{counts[0]}, now {counts[1]}" if counts[0] != counts[1] else same
            messages.append(f"{name}: {change}")
    return messages


def _checksum(table: AnnotationTable) -> str:
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
