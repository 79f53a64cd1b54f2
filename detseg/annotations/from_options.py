"""From a data config to tables: read, say what was found, divide."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from detseg.annotations import AnnotationTable, read, read_split, shared_content, split, subset
from detseg.keypoints import KeypointSchema
from detseg.options import DataConfig, TrainConfig
from detseg.synthetic.demo.render import demo_folder

SHOWN_CLASSES = 12
"""Classes that are named in a line; the rest is counted."""

Splits = dict[str, AnnotationTable]


def class_names(classes: str | list[str] | None) -> list[str] | None:
    """``--classes a,b`` or a list of names, as a list; None for all."""
    if classes is None:
        return None
    names = classes.split(",") if isinstance(classes, str) else classes
    return [name.strip() for name in names if name.strip()]


def load_table(config: DataConfig) -> AnnotationTable:
    """Read the data that ``config`` names; the demo set if it names none."""
    return read(
        config.data or demo_folder(),
        val_annotations=config.val_annotations,
        format=config.format,
        images=config.images,
        mask_values=config.mask_values,
        one_based=config.one_based,
        classes=class_names(config.classes),
        bad_instances=config.bad_instances,
    )


def describe_table(table: AnnotationTable) -> list[str]:
    """A few lines for the terminal: source, counts, and every repair that the reader made."""
    negatives = int((table.instances_per_image() == 0).sum()) if table.has_boxes else 0
    lines = [f"data: {table.source}"]
    instances = f"{len(table.instance_rows())} instances, " if table.has_boxes else ""
    counts = f"{len(table)} images, {instances}{len(table.class_map)} classes"
    if table.label_fields:
        names = ", ".join(field.name for field in table.label_fields)
        counts += f" in {len(table.label_fields)} label fields ({names})"
    lines.append(f"  {counts}" + (f", {negatives} images without any" if negatives else ""))
    if table.keypoint_schema is not None:
        lines.append(f"  {_keypoints_line(table.keypoint_schema)}")
    return lines + [f"  note: {line}" for line in table.notes.lines()]


def _keypoints_line(schema: KeypointSchema) -> str:
    """Which points there are, and which of them a mirror exchanges: no pair where there should be one spoils a run."""
    names = schema.names
    more = f" and {len(names) - SHOWN_CLASSES} more" if len(names) > SHOWN_CLASSES else ""
    pairs = "none change places in a mirrored image (name pairs left_x and right_x if they should)"
    if schema.swaps:
        pairs = f"{len(schema.swaps)} pairs change places in a mirrored image"
    return f"{len(names)} keypoints: {', '.join(names[:SHOWN_CLASSES])}{more}; {pairs}"


def class_counts(table: AnnotationTable) -> dict[str, int]:
    """Class name -> number of instances that are trained on, or of images for class folders and label columns."""
    if table.has_boxes:
        labels = table.label[table.trained_rows()].astype(np.int64)
    else:
        labels = table.image_labels()[1]
    numbers = np.bincount(labels, minlength=table.class_map.num_classes)[1:]
    return dict(zip(table.class_map.names, numbers.tolist(), strict=True))


def load_splits(config: TrainConfig, table: AnnotationTable) -> Splits:
    """Divide ``table`` into "train", "val" and perhaps "test", as ``config`` says."""
    if config.split_file:
        splits = read_split(table, Path(config.split_file))
    else:
        splits = split(table, seed=config.seed, val=config.val, test=config.test, by=config.split, groups=config.group)
    if config.subset is not None:
        splits["train"] = subset(splits["train"], config.subset, config.seed)
    return splits


def describe_splits(splits: Splits, table: AnnotationTable, config: TrainConfig) -> list[str]:
    """How many images are in each part, and what is wrong with the division."""
    how = config.split_file or config.split
    lines = [f"split ({how}): " + ", ".join(f"{len(part)} {name}" for name, part in splits.items())]
    counts = class_counts(splits["train"])
    common = sorted(counts.items(), key=lambda item: -item[1])[:SHOWN_CLASSES]
    more = f" and {len(counts) - SHOWN_CLASSES} classes more" if len(counts) > SHOWN_CLASSES else ""
    lines.append("  to learn from: " + ", ".join(f"{name} {count}" for name, count in common) + more)
    unseen = [name for name, count in counts.items() if count == 0]
    if unseen:
        lines.append(f"  warning: no training example of {len(unseen)} classes: {', '.join(unseen[:SHOWN_CLASSES])}")
    said = table.notes.lines()
    lines += [f"  note: {line}" for line in splits["train"].notes.lines() if line not in said]
    shared = shared_content(splits)
    if shared:
        (first, second), more = shared[0], f" and {len(shared) - 1} more" if len(shared) > 1 else ""
        lines.append(f"  warning: the same image on both sides, so results look too good: {first} = {second}{more}")
    return lines
