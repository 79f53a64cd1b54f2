"""Recognize the files that this program wrote into a folder, so that its output is not read as data."""

from __future__ import annotations

import os
from collections.abc import Collection
from fnmatch import fnmatchcase
from pathlib import Path

import msgspec

from detseg.images import IMAGE_SUFFIXES
from detseg.media.files import read_bytes
from detseg.runtime.run_folder import RunFolder

_RUN = RunFolder(Path())
PREDICTIONS, PREDICTION_LINES, PREDICTED_IMAGES = _RUN.predictions.name, "predictions.jsonl", "images.json"
"""Files of ``predict``: all results, one line per image, and the ids of the images."""

DRAWINGS = "images"
"""Folder of ``predict`` for the images with drawn predictions."""

OUTPUT_FOLDERS = tuple(f"predicted-{kind}" for kind in ("crops", "masks", "class-masks", "labelme", "yolo", "cvat"))
"""Folders of ``predict`` for its other outputs; their names are such that no data set has them."""

DRAWING_SUFFIX = ".jpg"
"""Added to the name of an image, suffix included, to name its drawing: ``a.png.jpg``."""

_IN_A_RUN = (
    *(path.name for path in (_RUN.config, _RUN.scenes, _RUN.split, _RUN.cut, _RUN.finished, _RUN.metrics)),
    *(path.name for path in (_RUN.metrics_log, _RUN.predictions, _RUN.result_images, _RUN.curves, _RUN.confusion())),
    *(_RUN.confusion("*").name, _RUN.card.name, "*.safetensors"),
)
_WRITTEN: tuple[tuple[tuple[str, ...], tuple[str, ...]], ...] = (
    ((_RUN.config.name, _RUN.metrics_log.name), _IN_A_RUN),
    ((_RUN.config.name, _RUN.split.name), _IN_A_RUN),
    ((_RUN.config.name, _RUN.scenes.name), _IN_A_RUN),
    ((_RUN.metrics.name, PREDICTIONS), (_RUN.metrics.name, PREDICTIONS)),
    (("summary.json", "sheet.jpg"), ("summary.json", "sheet.jpg")),
    ((PREDICTIONS, PREDICTED_IMAGES), (PREDICTIONS, PREDICTION_LINES)),
    ((PREDICTION_LINES,), (PREDICTION_LINES, "predictions.csv")),
)
"""Files that a command writes together, and the patterns of the names of all files that it writes."""


class _Images(msgspec.Struct):
    """The keys of ``images.json``; their values are not parsed."""

    images: msgspec.Raw
    categories: msgspec.Raw
    failed: msgspec.Raw


def own_files(names: Collection[str], folder: str | os.PathLike[str]) -> set[str]:
    """The names in a folder that a command of this program wrote: of a run, ``evaluate``, ``inspect`` or ``predict``.

    One file alone proves nothing: only files that are written together are recognized. All others in the folder are
    the user's.
    """
    known = [patterns for together, patterns in _WRITTEN if all(name in names for name in together)]
    own = {name for name in names for patterns in known if any(fnmatchcase(name, pattern) for pattern in patterns)}
    if (
        own & {PREDICTIONS, PREDICTION_LINES}
        and PREDICTED_IMAGES in names
        and is_image_list(Path(folder, PREDICTED_IMAGES))
    ):
        own.add(PREDICTED_IMAGES)  # annotations may have this name, too
    return own


def is_image_list(path: Path) -> bool:
    """Whether ``predict`` wrote this ``images.json``."""
    try:
        msgspec.json.decode(read_bytes(path), type=_Images)
    except (msgspec.DecodeError, OSError, RecursionError):
        return False
    return True


def is_predicted(names: Collection[str]) -> bool:
    """Whether ``predict`` wrote into a folder of these names, so that drawings are in its folder ``DRAWINGS``."""
    return PREDICTION_LINES in names or (PREDICTIONS in names and PREDICTED_IMAGES in names)


def is_run(names: Collection[str]) -> bool:
    """Whether a folder of these names is a run."""
    return any(_RUN.config.name in together and all(name in names for name in together) for together, _ in _WRITTEN)


def is_drawing(name: str) -> bool:
    """Whether the name in a folder ``DRAWINGS`` is one that ``predict`` gives: that of an image and ``.jpg``."""
    return name.endswith(DRAWING_SUFFIX) and name.removesuffix(DRAWING_SUFFIX).lower().endswith(IMAGE_SUFFIXES)
