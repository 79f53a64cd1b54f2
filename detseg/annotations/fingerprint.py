"""Compute a fingerprint of everything that is learned from, so that a resumed run can state what has changed."""

from __future__ import annotations

import base64
import hashlib
from collections import Counter
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from detseg.annotations.table import AnnotationTable, Record
from detseg.media.files import open_file
from detseg.media.video_files import is_frame_in_video
from detseg.short_text import counted, listed

Fingerprint = dict[str, Any]

VERSION = 2
"""Rule of new runs. A run keeps that of its checkpoint: those of the first rule, which have no version, had neither
masks and the difficult flag nor the content of the images."""

DIGEST = 8
"""Bytes of a digest: two of a million images are equal by chance in one of 40 million data sets."""

READERS = 8
"""Threads that read images: reading one waits for the disk, and the checksum needs no lock of Python."""


def fingerprint(splits: Mapping[str, AnnotationTable]) -> Fingerprint:
    """Class names, keypoints, and for each split the number of images and instances, and two digests of each image:
    of its annotations, and of the bytes of its file (never its time). Images without a file have an empty one.

    All image files are read: at 700 MB/s from memory, else at the speed of the disk, which the first epoch then saves.

    Raises:
        OSError: an image cannot be read.
    """
    first = next(iter(splits.values()))
    files = _file_digests(splits)
    parts = {
        name: {
            "images": len(table),
            "objects": int(table.instances_per_image().sum()),
            "sha256": _checksum_of_first_version(table),
            "annotations": _joined(_annotation_digest(record) for record in table),
            "files": _joined(files.get(record.path, bytes(DIGEST)) for record in table),
        }
        for name, table in splits.items()
    }
    schema = first.keypoint_schema
    points = [] if schema is None else [list(schema.names), [list(pair) for pair in schema.swaps]]
    return {"version": VERSION, "classes": list(first.class_map.names), "keypoints": points, "parts": parts}


def differences(before: Fingerprint, now: Fingerprint, splits: Mapping[str, AnnotationTable]) -> list[str]:
    """Describe what has changed, one message per change; empty if nothing has.

    Args:
        before: of a checkpoint; the rule of its version decides.
        now: of the data as it is now.
        splits: the tables of ``now``, for the names of the images.
    """
    messages = []
    rule = min(before.get("version", 1), VERSION + 1)
    if before["classes"] != now["classes"]:
        messages.append(f"the classes were {', '.join(before['classes'])} and are now {', '.join(now['classes'])}")
    if rule == VERSION and before.get("keypoints") != now.get("keypoints"):
        messages.append("the keypoints, their order or their pairs are different")
    for name in sorted({*before["parts"], *now["parts"]}):
        old, new = before["parts"].get(name), now["parts"].get(name)
        if old is None or new is None:
            messages.append(f"there {'was no' if old is None else 'is no longer a'} split {name}")
        else:
            changes = _changes(old, new, splits[name]) if rule == VERSION else _first_changes(old, new)
            messages += [f"{name}: {change}" for change in changes]
    return messages


def _first_changes(old: dict[str, Any], new: dict[str, Any]) -> list[str]:
    """Describe what has changed in a split, by the first rule, which later versions keep."""
    counts = [f"{split['images']} images, {split['objects']} instances" for split in (old, new)]
    if old["sha256"] == new["sha256"]:
        return []
    same = "the same counts, but different names, sizes or annotations"
    return [f"{counts[0]}, now {counts[1]}" if counts[0] != counts[1] else same]


def _changes(old: dict[str, Any], new: dict[str, Any], table: AnnotationTable) -> list[str]:
    """Describe what has changed in a split."""
    if old["images"] != new["images"]:
        return _first_changes(old, new)
    changes = []
    for key, what in (("files", "the file"), ("annotations", "the name or the annotations")):
        before, now = _split(old[key]), _split(new[key])
        if before != now and Counter(before) == Counter(now):
            changes.append("the order of the images")
        elif before != now:
            rows = [row for row, pair in enumerate(zip(before, now, strict=True)) if pair[0] != pair[1]]
            changes.append(f"{what} of {counted(len(rows), 'image')}: {listed([table[row].name for row in rows])}")
    return list(dict.fromkeys(changes))


def _joined(digests: Any) -> str:
    return base64.b64encode(b"".join(digests)).decode()


def _split(text: str) -> list[bytes]:
    content = base64.b64decode(text)
    return [content[start : start + DIGEST] for start in range(0, len(content), DIGEST)]


def _file_digests(splits: Mapping[str, AnnotationTable]) -> dict[Path, bytes]:
    """Digests of the bytes of all image files; of a frame, that of its video, which is read once."""
    names = {table.root / str(name) for table in splits.values() for name in np.unique(table.media) if str(name)}
    content = {path: path.parent if is_frame_in_video(path) else path for path in names}
    paths = sorted(set(content.values()))
    with ThreadPoolExecutor(READERS) as pool:
        digests = dict(zip(paths, pool.map(_file_digest, paths), strict=True))
    return {path: digests[file] for path, file in content.items()}


def _file_digest(path: Path) -> bytes:
    with open_file(path) as file:
        return hashlib.file_digest(file, "sha256").digest()[:DIGEST]  # type: ignore[arg-type]  # it has readinto


def _annotation_digest(record: Record) -> bytes:
    """Digest of everything in the annotations of an image that is learned from or evaluated."""
    digest = hashlib.sha256(_head(record))
    for column in (*_columns(record), record.areas, record.difficult):
        digest.update(b"-" if column is None else np.ascontiguousarray(column).tobytes())
    for segmentation in record.segmentations:
        if segmentation is None:
            digest.update(b"-")
        elif isinstance(segmentation, dict):
            digest.update(f"{segmentation['size']}".encode() + segmentation["counts"])
        else:
            digest.update(f"{[len(ring) for ring in segmentation]}".encode())
            for ring in segmentation:
                digest.update(np.ascontiguousarray(ring).tobytes())
    return digest.digest()[:DIGEST]


def _checksum_of_first_version(table: AnnotationTable) -> str:
    digest = hashlib.sha256()
    for record in table:
        digest.update(_head(record))
        for column in _columns(record):
            digest.update(b"-" if column is None else np.ascontiguousarray(column).tobytes())
        digest.update(repr(record.areas.tolist()).encode())
    return digest.hexdigest()


def _head(record: Record) -> bytes:
    return f"{record.name}\0{record.size_hw}\0{record.orientation}\0{record.image_id}\0".encode()


def _columns(record: Record) -> tuple[Any, ...]:
    return (
        record.boxes_xywh,
        record.labels,
        record.iscrowd,
        record.ignore,
        record.class_index,
        record.keypoints,
    )
