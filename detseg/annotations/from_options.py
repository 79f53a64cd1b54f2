"""Read, describe and split the data that the options specify."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from detseg.annotations import AnnotationTable, read, read_split, shared_content, split, subset
from detseg.annotations.folds import folds, parse_fold
from detseg.errors import DataError
from detseg.keypoints import KeypointSchema
from detseg.options import DataConfig, TrainConfig
from detseg.synthetic.demo.render import demo_folder

SHOWN_CLASSES = 12
"""Class names listed in one line; the others are only counted."""

Splits = dict[str, AnnotationTable]

GROUP_WORDS = (None, "auto", "none")
"""Values of --group that are not a CSV file or a regular expression."""


def load_table(config: DataConfig) -> AnnotationTable:
    """Read the data that ``config`` specifies; the demo set if it specifies none."""
    return read(
        config.data or demo_folder(),
        val_annotations=config.val_annotations,
        format=config.format,
        images=config.images,
        mask_values=config.mask_values,
        one_based=config.one_based,
        classes=config.classes,
        rename=config.rename,
        class_attribute=config.class_attribute,
        bad_instances=config.bad_instances,
        follow_links=config.follow_links,
        without_mask=config.without_mask,
        missing_images=config.missing_images,
    )


def describe_table(table: AnnotationTable) -> list[str]:
    """Lines for the terminal: source, counts, lost objects, and every repair made by the reader."""
    negatives = int((table.instances_per_image() == 0).sum()) if table.has_boxes else 0
    lines = [f"data: {table.source}"]
    instances = f"{len(table.instance_rows())} instances, " if table.has_boxes else ""
    counts = f"{len(table)} images, {instances}{len(table.class_map)} classes"
    if table.label_fields:
        names = ", ".join(field.name for field in table.label_fields)
        counts += f" in {len(table.label_fields)} label fields ({names})"
    lines.append(f"  {counts}" + (f", {negatives} images without instances" if negatives else ""))
    if table.keypoint_schema is not None:
        lines.append(f"  {_keypoints_line(table.keypoint_schema)}")
    if table.lost.objects:
        lines.append(f"  {table.lost.line()}")
    return lines + [f"  note: {line}" for line in table.notes.lines()]


def _keypoints_line(schema: KeypointSchema) -> str:
    """List the keypoints and the pairs swapped by a flip: a missing pair makes training on flipped images wrong."""
    names = schema.names
    more = f" and {len(names) - SHOWN_CLASSES} more" if len(names) > SHOWN_CLASSES else ""
    pairs = "no pairs are swapped by a horizontal flip (name them left_x and right_x to define pairs)"
    if schema.swaps:
        pairs = f"{len(schema.swaps)} pairs are swapped by a horizontal flip"
    return f"{len(names)} keypoints: {', '.join(names[:SHOWN_CLASSES])}{more}; {pairs}"


def class_counts(table: AnnotationTable) -> dict[str, int]:
    """Class name -> number of training instances, or of images for class folders and label columns."""
    if table.has_boxes:
        labels = table.label[table.trained_rows()].astype(np.int64)
    else:
        labels = table.image_labels()[1]
    numbers = np.bincount(labels, minlength=table.class_map.num_classes)[1:]
    return dict(zip(table.class_map.names, numbers.tolist(), strict=True))


def load_splits(config: TrainConfig, table: AnnotationTable) -> Splits:
    """Split ``table`` into "train", "val" and optionally "test", as ``config`` specifies."""
    if config.val == 0 and config.val_annotations:
        raise DataError(f"--val 0 with --val-annotations {config.val_annotations}: omit one of them")
    groups = None if config.group in GROUP_WORDS else config.group
    if config.split_file:
        _check_split_file(config)
        splits = read_split(table, Path(config.split_file))
        if config.val == 0 and "val" in splits:
            raise DataError(
                f"--val 0 with --split-file {config.split_file}, which has a validation split of {len(splits['val'])} "
                "images; omit one of them"
            )
    elif config.fold:
        _check_fold(config)
        number, k = parse_fold(config.fold)
        splits = folds(table, k, seed=config.seed, groups=groups)[number - 1]
    else:
        splits = split(table, seed=config.seed, val=config.val, test=config.test, by=config.split, groups=groups)
    if config.subset is not None:
        splits["train"] = subset(splits["train"], config.subset, config.seed)
    return splits


def _check_split_file(config: TrainConfig) -> None:
    if config.fold:
        raise DataError(f"--fold {config.fold} with --split-file {config.split_file}: give only one of them")


def _check_fold(config: TrainConfig) -> None:
    """Raise DataError for other options that say how the data is split."""
    for name, value, default in (
        ("val", config.val, TrainConfig.val),
        ("test", config.test, None),
        ("val-annotations", config.val_annotations, None),
    ):
        if value != default:
            raise DataError(f"--fold {config.fold} with --{name} {value}: the folds say how the data is split; omit it")
    if config.split == "source":
        raise DataError(f"--fold {config.fold} with --split source: omit one of them")


def describe_splits(splits: Splits, table: AnnotationTable, config: TrainConfig) -> list[str]:
    """Lines for the terminal: images in each split, instances per class, and warnings about the split."""
    method = config.split_file or (f"fold {config.fold}" if config.fold else config.split)
    lines = [f"split ({method}): " + ", ".join(f"{len(images)} {name}" for name, images in splits.items())]
    if "val" not in splits:
        lines.append(
            "  no validation split: nothing is evaluated and no predictions.jpg is written; the best weights are those "
            "of the epoch with the lowest training loss"
        )
    counts = class_counts(splits["train"])
    common = sorted(counts.items(), key=lambda item: -item[1])[:SHOWN_CLASSES]
    more = f" and {len(counts) - SHOWN_CLASSES} more classes" if len(counts) > SHOWN_CLASSES else ""
    unit = "instances" if splits["train"].has_boxes else "images"
    lines.append(f"  training {unit} per class: " + ", ".join(f"{name} {count}" for name, count in common) + more)
    untrained = [name for name, count in counts.items() if count == 0]
    if untrained:
        names = ", ".join(untrained[:SHOWN_CLASSES])
        lines.append(f"  warning: {len(untrained)} classes have no training {unit}: {names}")
    printed = table.notes.lines()
    lines += [f"  note: {line}" for line in splits["train"].notes.lines() if line not in printed]
    shared = shared_content(splits)
    if shared:
        (first, second), more = shared[0], f" and {len(shared) - 1} more" if len(shared) > 1 else ""
        lines.append(
            f"  warning: the same image is in two splits, so scores will be too high: {first} = {second}{more}"
        )
    return lines
