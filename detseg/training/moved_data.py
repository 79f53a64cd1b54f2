"""A run whose data is in another place than it was: options for the new place, and what to do if it is nowhere."""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from detseg.annotations.fingerprint import differences, fingerprint
from detseg.annotations.from_options import Splits
from detseg.annotations.split_file import read_split
from detseg.annotations.table import AnnotationTable
from detseg.errors import DataError
from detseg.media.files import exists
from detseg.options import DataConfig, TrainConfig
from detseg.runtime.missing_path import missing_path
from detseg.runtime.run_folder import RunFolder
from detseg.runtime.user_command import user_command
from detseg.training.run_splits import run_splits

PLACES = ("data", "images", "val_annotations")
"""Options that say where the data is."""


def new_places(saved: Mapping[str, Any], config: DataConfig) -> dict[str, str]:
    """The options ``PLACES`` that ``config`` has; with new data also a saved folder that is at the same place relative
    to it. Absolute paths.

    Args:
        saved: options of the run.
        config: options of the command.
    """
    new = {name: os.path.realpath(path) for name in PLACES if (path := getattr(config, name))}
    if "data" in new and saved.get("data"):
        for name in PLACES[1:]:
            if saved.get(name) and name not in new:
                with suppress(ValueError):  # on another drive
                    moved = os.path.normpath(Path(new["data"], os.path.relpath(saved[name], saved["data"])))
                    new |= {name: moved} if exists(moved) else {}
    return new


def check_places(options: DataConfig, run: Path, config: DataConfig) -> None:
    """Check that the data of a run exists.

    Args:
        options: of the run, with the changes of the command.
        run: its folder.
        config: options of the command.

    Raises:
        FileNotFoundError: the data is not where it was, with the commands for data that was moved.
    """
    for name in PLACES:
        path = getattr(options, name)
        if not path or exists(path):
            continue
        requested = getattr(config, name)
        if requested and os.path.realpath(requested) == os.path.realpath(path):
            raise missing_path(path)
        raise FileNotFoundError(
            f"{run} was trained on {path}, which does not exist; if it was moved, name its new place: "
            f"{_with_place('train', ['--resume', run], name)} or "
            f"{_with_place('evaluate', [run], name)} --split val"
        )


def _with_place(command: str, arguments: list[Any], name: str) -> str:
    return user_command(command, *arguments, f"--{name.replace('_', '-')}", "NEW")


def resumed_splits(options: TrainConfig, table: AnnotationTable) -> tuple[Splits, list[str]]:
    """The splits of the run that ``options.resume`` names, by the file names in its split.json, and lines about them.

    Raises:
        DataError: images of the run are missing in ``table``.
    """
    run = RunFolder(Path(options.resume or ""))
    if not run.split.is_file():
        return run_splits(options, table)
    try:
        return read_split(table, run.split), []
    except DataError as error:
        raise DataError(f"{error}. Nothing was written. {remedy(run.path)}") from None


def changes(before: Mapping[str, Any], splits: Splits) -> list[str]:
    """What has changed since a fingerprint was computed; nothing is known, and nothing is said, without one."""
    return differences(dict(before), fingerprint(splits), splits) if before else []


def remedy(run: Path) -> str:
    """What to do if the data is not that of a run: its weights are in a file that exists."""
    folder = RunFolder(run)
    weights = next((path for path, exists in ((run, folder.best.is_file()), (folder.last, True)) if exists))
    return f"Pass the data that it was trained on with --data, or start a new run with --weights {weights}"
