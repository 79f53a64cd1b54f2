"""Choose the images that a run is evaluated on, and count those that it was trained on."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path, PurePosixPath
from typing import Any

from safetensors import SafetensorError, safe_open

from detseg.annotations import AnnotationTable, read_split
from detseg.annotations.from_options import load_table
from detseg.annotations.groups import file_name, first_names
from detseg.annotations.split_file import matching_rows, saved_files
from detseg.errors import DataError
from detseg.options import DataConfig, EvaluateConfig
from detseg.runtime.reporter import Reporter
from detseg.runtime.run_folder import RunFolder
from detseg.short_text import counted
from detseg.training.moved_data import changes, check_places, new_places


@dataclass(frozen=True)
class Evaluated:
    """The images that are evaluated.

    Attributes:
        table: their annotations.
        title: what they are: "val split", "all images".
        training_images: those with the file name of a training image of the run; None: not known.
    """

    table: AnnotationTable
    title: str
    training_images: list[str] | None


def select_split(config: EvaluateConfig, run: Path, run_options: Mapping[str, Any], reporter: Reporter) -> Evaluated:
    """The images of ``config.split``: of the data of the run, also if it was moved, those of its saved split, by file
    name; of other data its own split of that name, else all. Reports which, and warns of training images.

    Args:
        run: run folder or checkpoint file.
        run_options: options of the run; empty if there are none.

    Raises:
        DataError: the run has no such split; data that cannot be used.
        FileNotFoundError: the data of the run is not where it was.
    """
    if not config.data and not run_options:
        raise DataError(f"{run}: no config.toml next to this checkpoint states its training data; pass the data")
    saved_data = run_options.get("data")
    if not config.data or (saved_data and Path(config.data).resolve() == Path(saved_data).resolve()):
        evaluated = _of_the_run(config, run, run_options, reporter)
    else:
        evaluated = _of_other_data(config, run, run_options, reporter)
    if config.split != "train":
        _warn_of_training_images(evaluated, run, reporter)
    return evaluated


def _of_the_run(config: EvaluateConfig, run: Path, run_options: Mapping[str, Any], reporter: Reporter) -> Evaluated:
    """Images of the data at the place where the run found it."""
    changed = _changed_data_options(config)
    options = replace(config, **_saved_data_options(run_options) | changed)
    check_places(options, run, config)
    table, split_file = load_table(options), RunFolder.of(run).split
    if config.split == "all" or not split_file.is_file():
        return _own_split(config, table, split_file, reporter, is_data_of_run=True)
    splits = read_split(table, split_file)
    if not {*changed} - {"data"}:
        _warn_of_changes(splits, table, run, reporter)
    return _saved_split(config.split, splits, run)


def _saved_split(split: str, splits: Mapping[str, AnnotationTable], run: Path) -> Evaluated:
    if split not in splits:
        raise DataError(f"{run} has no {split} split; available splits: {', '.join(splits)}")
    table = splits[split]
    names = [file_name(table, row) for row in range(len(table))] if split == "train" else []
    return Evaluated(table, f"{split} split", names)


def _of_other_data(config: EvaluateConfig, run: Path, run_options: Mapping[str, Any], reporter: Reporter) -> Evaluated:
    """Images of data elsewhere, which may be the data of the run after a move."""
    split_file, split = RunFolder.of(run).split, config.split
    if split_file.is_file():
        table, is_moved = _table_of_moved_data(config, run_options, split_file)
        rows, missing = matching_rows(table, split_file)
        known = {row for part in rows.values() for row in part}
        is_part = split in rows and bool(rows[split]) and (not missing[split] or len(known) == len(table))
        if split != "all" and (is_moved or is_part):
            return _by_file_names(split, table, rows, missing, run, reporter)
    else:
        table = load_table(config)
    return _own_split(config, table, split_file, reporter)


def _own_split(
    config: EvaluateConfig,
    table: AnnotationTable,
    split_file: Path,
    reporter: Reporter,
    *,
    is_data_of_run: bool = False,
) -> Evaluated:
    """The images that the data itself has in the split, else all."""
    own = [row for row in range(len(table)) if str(table.split[row]) == config.split]
    if own:
        table, title = table.subset(own), f"{config.split} split"
    else:
        title = "all images"
        if config.split != "all":
            text = f"{table.source} has no {config.split} split: all {len(table)} images are evaluated"
            reporter.warning(text, stderr=config.json)
    return Evaluated(table, title, _training_images(table, split_file, exact=is_data_of_run))


def _table_of_moved_data(
    config: EvaluateConfig, run_options: Mapping[str, Any], split_file: Path
) -> tuple[AnnotationTable, bool]:
    """The data, and whether it has all images of the run; it is then read with the options of the run."""
    places = new_places(run_options, config)
    options = replace(config, **_saved_data_options(run_options) | _changed_data_options(config) | places)
    try:
        table = load_table(options)
        if not any(matching_rows(table, split_file)[1].values()):
            return table, True
    except DataError:
        if options == config:
            raise
    return (table if options == config else load_table(config)), False


def _by_file_names(
    split: str,
    table: AnnotationTable,
    rows: Mapping[str, list[int]],
    missing: Mapping[str, list[str]],
    run: Path,
    reporter: Reporter,
) -> Evaluated:
    """The images of a saved split that are in other data; reports what they are, and how they differ."""
    splits = {name: table.subset(part) for name, part in rows.items()}
    evaluated, source = _saved_split(split, splits, run), table.source or table.root
    text = f"{split} split of {run} by file names: {counted(len(evaluated.table), 'image')} of {source}"
    if missing[split]:
        text += f"; {counted(len(missing[split]), 'image')} of it are missing: {first_names(missing[split])}"
    reporter.warning(text, stderr=True)
    if not any(missing.values()):
        _warn_of_changes(splits, table, run, reporter)
    return evaluated


def _warn_of_changes(
    splits: Mapping[str, AnnotationTable], table: AnnotationTable, run: Path, reporter: Reporter
) -> None:
    """Warn if the images of the saved split are not as they were when the run was trained."""
    changed = changes(_saved_fingerprint(run), dict(splits))
    if changed:
        reporter.warning(
            f"warning: {table.source or table.root} has the file names of the data that {run} was trained on, but "
            f"differs from it: {'; '.join(changed)}. If these are other images, evaluate all of them with --split all",
            stderr=True,
        )


def _training_images(table: AnnotationTable, split_file: Path, *, exact: bool) -> list[str] | None:
    """The training images of the run among the images of a table; None if nothing is known.

    In other data (not ``exact``) an image may have another path. It is then known by its file name, if the run and the
    data have that name once.
    """
    if not split_file.is_file():
        return None
    files, names = saved_files(split_file), [file_name(table, row) for row in range(len(table))]
    train, saved = {*files.get("train", ())}, {name for part in files.values() for name in part}
    if not exact:
        once = {name for name, number in Counter(map(_last, saved)).items() if number == 1}
        others = Counter(map(_last, names))
        last_train = {_last(name) for name in train} & once
        moved = {name for name in names if others[last := _last(name)] == 1 and last in last_train}
        train |= moved - saved
    return [name for name in names if name in train]


def _last(name: str) -> str:
    return PurePosixPath(name).name


def _warn_of_training_images(evaluated: Evaluated, run: Path, reporter: Reporter) -> None:
    """Warn on stderr, where it is read also with ``--json``."""
    names = evaluated.training_images
    if names is None:
        reporter.warning(
            f"note: no split.json beside {run}: whether it was trained on these images is not known", stderr=True
        )
    elif names:
        total = len(evaluated.table)
        has_val = any(matching_rows(evaluated.table, RunFolder.of(run).split)[0].get("val", ()))
        remedy = (
            "--split val evaluates the validation images only" if has_val else "evaluate images that are in no split"
        )
        reporter.warning(
            f"warning: {len(names)} of these {total} images have the file names of training images of {run} "
            f"({first_names(names)}): the metrics are too good for new images; {remedy}",
            stderr=True,
        )


def _saved_data_options(run_options: Mapping[str, Any]) -> dict[str, Any]:
    """The options of the data of a run."""
    return {item.name: run_options[item.name] for item in fields(DataConfig) if item.name in run_options}


def _changed_data_options(config: EvaluateConfig) -> dict[str, Any]:
    """The options of the data that the command gives."""
    default = DataConfig()
    values = {item.name: getattr(config, item.name) for item in fields(DataConfig)}
    return {name: value for name, value in values.items() if value != getattr(default, name)}


def _saved_fingerprint(run: Path) -> dict[str, Any]:
    """That of the data a run was trained on; empty if it is not known. Only checkpoints for resuming have it; of these,
    which are large, only the header is read."""
    path = RunFolder.of(run).last
    try:
        with safe_open(path, framework="numpy") as file:
            data: dict[str, Any] = json.loads(file.metadata()["detseg"]).get("data", {})
        return data
    except (OSError, ValueError, LookupError, TypeError, AttributeError, SafetensorError):
        return {}  # resuming the run reads the whole file, and reports what is wrong
