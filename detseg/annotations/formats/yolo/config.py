"""Read the configuration of a YOLO data set: data.yaml, Darknet's obj.data, files of class names."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from detseg.annotations.formats.shared.text_file import read_text
from detseg.annotations.formats.shared.yaml_text import parse_yaml
from detseg.annotations.listing import split_of
from detseg.annotations.repair_log import RepairLog
from detseg.errors import DataError
from detseg.keypoints import KeypointSchema, keypoint_schema, unnamed
from detseg.media.files import file_size, read_bytes

MAX_YAML = 2**20
"""Bytes. A list of a thousand class names needs 20 KB."""

NAME_FILES = ("obj.names", "classes.txt", "labels.txt", "predefined_classes.txt", "_darknet.labels")
"""Files with one class name per line, in the order in which they are searched."""

_PREFERRED = ("data.yaml", "data.yml", "dataset.yaml", "dataset.yml")
_MAX_KEYPOINTS = 1000


@dataclass(frozen=True)
class YoloConfig:
    """One data.yaml or obj.data. The files are untrusted input; all values are validated here.

    Attributes:
        file: its path, relative to the data folder.
        names: class names by number; None if it defines none.
        splits: "train" | "val" | "test" -> folders, lists or images as written there, prefixed with ``path``.
        names_file: file of the class names (Darknet); "" for none.
        kpt_shape: number of keypoints, and values per keypoint (2 or 3); None without keypoints.
        flip_idx: for each keypoint the index of its counterpart after a horizontal flip.
        kpt_names: names of the keypoints; [] for none.
    """

    file: str
    names: dict[int, str] | None = None
    splits: dict[str, list[str]] = field(default_factory=dict)
    names_file: str = ""
    kpt_shape: tuple[int, int] | None = None
    flip_idx: tuple[int, ...] = ()
    kpt_names: tuple[str, ...] = ()


def find_config(root: Path, files: Sequence[str]) -> YoloConfig | None:
    """The config in a folder; None if there is none. Configs in subfolders belong to other data sets.

    Raises:
        DataError: several candidates, or a corrupt config.
    """
    candidates = [file for file in files if "/" not in file and file.lower().endswith((".yaml", ".yml"))]
    preferred = sorted([file for file in candidates if file.lower() in _PREFERRED], key=str.lower)
    for file in preferred:
        if _looks_like_config(root / file):
            return read_yaml(root, file)
    others = [file for file in candidates if file not in preferred and _looks_like_config(root / file)]
    if len(others) > 1:
        raise DataError(f"{root}: several YOLO configs ({', '.join(others[:5])}); pass one of them as the data")
    if others:
        return read_yaml(root, others[0])
    darknet = [file for file in files if "/" not in file and file.lower().endswith(".data")]
    return read_darknet(root, darknet[0]) if len(darknet) == 1 else None


def read_yaml(root: Path, file: str) -> YoloConfig:
    """Read a data.yaml. All scalars are read as text, so a class name may be ``no`` or ``1``.

    Raises:
        DataError: too large, not YAML, not a mapping, or values of a wrong type.
    """
    text = read_text(root / file, file, max_bytes=MAX_YAML)
    data = parse_yaml(text, file)
    if not isinstance(data, dict):
        raise DataError(f"{file}: not a mapping with the keys names and train; export the data set again")
    base = _text(data.get("path", ""), "path", file)
    splits: dict[str, list[str]] = {}
    for key, value in data.items():
        split = split_of(key) if isinstance(key, str) else ""
        if split and value not in ("", [], "null", "~"):
            entries = value if isinstance(value, list) else [value]
            splits.setdefault(split, []).extend(_join_paths(base, _text(entry, str(key), file)) for entry in entries)
    names = _names(data.get("names"), file)
    kpt_shape = _numbers(data.get("kpt_shape"), "kpt_shape", file)
    if kpt_shape and not (len(kpt_shape) == 2 and 1 <= kpt_shape[0] <= _MAX_KEYPOINTS and kpt_shape[1] in (2, 3)):
        raise DataError(f"{file}: kpt_shape {list(kpt_shape)} is not [number of points, 2 or 3]; correct it")
    return YoloConfig(
        file,
        names,
        splits,
        kpt_shape=(kpt_shape[0], kpt_shape[1]) if kpt_shape else None,
        flip_idx=_numbers(data.get("flip_idx"), "flip_idx", file),
        kpt_names=_keypoint_names(data.get("kpt_names")),
    )


def read_darknet(root: Path, file: str) -> YoloConfig:
    """Read an obj.data: ``key = value`` lines."""
    values = dict(re.findall(r"^\s*(\w+)\s*=\s*(.+?)\s*$", read_text(root / file, file, max_bytes=MAX_YAML), re.M))
    splits = {split: [value] for key, value in values.items() if (split := split_of(key))}
    return YoloConfig(file, None, splits, names_file=values.get("names", ""))


def read_names(root: Path, file: str) -> dict[int, str]:
    """Class names by number, one per line; empty lines at the end are ignored.

    Raises:
        DataError: an empty line between names, a duplicate name, or no name.
    """
    lines = [line.strip() for line in read_text(root / file, file, max_bytes=MAX_YAML).rstrip().splitlines()]
    if not all(lines):
        raise DataError(f"{file}, line {lines.index('') + 1}: empty, expected a class name; remove or fill it")
    return _checked_names(dict(enumerate(lines)), file)


def config_schema(config: YoloConfig | None, notes: RepairLog) -> KeypointSchema | None:
    """The keypoints that ``kpt_shape`` defines; None without it. Default names are "point 1" to "point P"."""
    if config is None or config.kpt_shape is None:
        return None
    number = config.kpt_shape[0]
    has_names = len(config.kpt_names) == number
    if not has_names:
        notes.add(f"keypoints without names: named point 1 to point {number}", config.file)
    schema = keypoint_schema(config.kpt_names if has_names else unnamed(number))
    flips = config.flip_idx
    if not flips:
        return schema
    if sorted(flips) != list(range(number)) or any(flips[flip] != i for i, flip in enumerate(flips)):
        notes.add("flip_idx ignored: it does not swap points in pairs", f"{config.file}: {list(flips)}")
        return schema
    swaps = tuple((i, flip) for i, flip in enumerate(flips) if i < flip)
    return KeypointSchema(schema.names, swaps, schema.sigmas, schema.skeleton)


def _looks_like_config(path: Path) -> bool:
    """Whether the text of a YAML file contains the keys of a YOLO config."""
    if file_size(path) > MAX_YAML:
        return False
    text = read_bytes(path)
    return bool(re.search(rb"^names\s*:", text, re.M) or re.search(rb"^(train|val)\s*:.*(images|\.txt|/)", text, re.M))


def _names(value: Any, file: str) -> dict[int, str] | None:
    if value in (None, "", "null"):
        return None
    if isinstance(value, list):
        value = dict(enumerate(value))
    if not isinstance(value, dict):
        raise DataError(
            f"{file}: names is {_shortened(value)}, not a list or a mapping from numbers to names; correct it"
        )
    names = {}
    for key, name in value.items():
        if not re.fullmatch(r"\d{1,9}", str(key)):
            raise DataError(f"{file}: the key {_shortened(key)} in names is not a class number 0, 1, ...; correct it")
        names[int(key)] = _text(name, f"name {key}", file).strip()
    return _checked_names(names, file)


def _checked_names(names: dict[int, str], file: str) -> dict[int, str]:
    number_by_name: dict[str, int] = {}
    for number, name in names.items():
        if not name:
            raise DataError(f"{file}: class {number} has no name; add one")
        if name in number_by_name:
            raise DataError(
                f"{file}: classes {number_by_name[name]} and {number} have the same name {name!r}; rename one"
            )
        number_by_name[name] = number
    if not names:
        raise DataError(f"{file}: no class names in it; add them, or remove the empty list")
    return dict(sorted(names.items()))


def _numbers(value: Any, key: str, file: str) -> tuple[int, ...]:
    if value in (None, "", "null", []):
        return ()
    if not isinstance(value, list) or not all(isinstance(v, str) and re.fullmatch(r"\d{1,6}", v) for v in value):
        raise DataError(f"{file}: {key} is {_shortened(value)}, not a list of whole numbers; correct it")
    return tuple(int(number) for number in value)


def _keypoint_names(value: Any) -> tuple[str, ...]:
    """The names for the first class (``kpt_names: {0: [nose, ...]}``), or one list for all; () if invalid."""
    if isinstance(value, dict):
        value = next(iter(value.values()), None)
    valid = isinstance(value, list) and all(isinstance(name, str) and name for name in value)
    return tuple(value) if valid and len(set(value)) == len(value) else ()


def _text(value: Any, key: str, file: str) -> str:
    if not isinstance(value, str):
        raise DataError(f"{file}: {key} is {_shortened(value)}, not a string; correct it")
    return value


def _join_paths(base: str, entry: str) -> str:
    absolute = entry.startswith(("/", "\\")) or entry[1:2] == ":"
    return entry if absolute or not base else f"{base}/{entry}"


def _shortened(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:60]}..."
