"""Split the data of a new run, so that near-duplicates of training images are not evaluated."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from itertools import islice

from detseg.annotations.from_options import Splits, load_splits
from detseg.annotations.groups import file_name, group_rows
from detseg.annotations.table import AnnotationTable
from detseg.doctor.near_duplicates import near_duplicates
from detseg.doctor.related_images import with_large_groups_cut, with_related_groups
from detseg.errors import DataError
from detseg.options import TrainConfig
from detseg.short_text import counted, middle_cut

MOST_IMAGES = 20_000
"""Images up to which near-duplicates are looked for without being asked to: all are decoded, at a reduced size."""

MOST, RUN = 0.5, 0.1
"""Share of the images from which a group does not fit into a split, and of the runs that it is then cut into."""

NAMED = 120
"""Characters of a file name in a line."""


def run_splits(options: TrainConfig, table: AnnotationTable) -> tuple[Splits, list[str]]:
    """Split ``table`` as ``options`` specify.

    Without ``group``, near-duplicates are looked for, and each group of them is kept in one split if they would be in
    two; splits of the source stay as they are.

    Returns:
        the splits, and lines for the terminal about near-duplicates.
    """
    if options.group not in (None, "auto") or options.split_file or len(table) < 2:
        return load_splits(options, table), []
    plain = replace(options, group="none")
    requested = options.group == "auto"
    if len(table) > MOST_IMAGES and not requested:
        line = f"  note: near-duplicates are looked for in up to {MOST_IMAGES} images only; --group auto looks for them"
        return load_splits(plain, table), [line]
    grouped = with_related_groups(table, near_duplicates(table, text="looking for near-duplicates"))
    splits = load_splits(plain, table)
    shared = list(_in_two_splits(grouped, splits))
    if not requested and not shared and not options.fold:
        return splits, []
    if not requested and (options.split != "auto" or _is_of_source(options, table)):
        return splits, _warning(shared)
    return _split_by_groups(options, grouped, shared)


def _split_by_groups(options: TrainConfig, grouped: AnnotationTable, shared: list[str]) -> tuple[Splits, list[str]]:
    """Split by the groups; one with most of the images is cut first."""
    by_group = replace(options, group="none", split="auto" if options.fold else "group")
    cut = 0
    if max(len(rows) for rows in group_rows(grouped)) > MOST * len(grouped):
        grouped, cut = with_large_groups_cut(grouped, max(1, round(RUN * len(grouped))))
    try:
        splits = load_splits(by_group, grouped)
    except DataError:
        if options.group == "auto":
            raise
        return load_splits(replace(options, group="none"), grouped), _warning(shared)
    groups = [rows for rows in group_rows(grouped) if len(rows) > 1]
    lines = []
    if groups:
        name = middle_cut(file_name(grouped, int(groups[0][0])), NAMED)
        lines.append(
            f"  {counted(len(groups), 'group')} of near-duplicates and related images ("
            f"{counted(sum(map(len, groups)), 'image')}, such as {name}) kept in one split each (--group none: not)"
        )
    if cut:
        lines.append(
            f"  warning: {counted(cut, 'group')} with more than half of the images was cut into runs of neighbours by "
            "name; their ends are similar images in two splits, so scores will be too high: add other images"
        )
    return splits, lines


def _is_of_source(options: TrainConfig, table: AnnotationTable) -> bool:
    """Whether the splits are those of the data itself."""
    names = set(table.split.tolist()) - {""}
    return not options.fold and "train" in names and len(names) > 1


def _in_two_splits(grouped: AnnotationTable, splits: Splits) -> Iterator[str]:
    """``train: a.jpg ~ val: b.jpg`` for each group that is in two splits."""
    split_of = {int(image): name for name, table in splits.items() for image in table.record}
    for rows in group_rows(grouped):
        first: dict[str, int] = {}
        for row in rows.tolist():
            name = split_of.get(int(grouped.record[row]))
            if name is not None:
                first.setdefault(name, row)
        if len(first) > 1:
            yield " ~ ".join(
                f"{name}: {middle_cut(file_name(grouped, row), NAMED)}" for name, row in islice(first.items(), 2)
            )


def _warning(shared: list[str]) -> list[str]:
    if not shared:
        return []
    more = f" and {len(shared) - 1} more" if len(shared) > 1 else ""
    return [
        f"  warning: near-duplicates in two splits, so scores will be too high: {shared[0]}{more}; --group auto splits "
        "the data without them"
    ]
