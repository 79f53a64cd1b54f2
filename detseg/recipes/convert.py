"""Convert annotations to another format: write them, copy the images, and read the output again to verify it."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from detseg.annotations import AnnotationTable, read
from detseg.annotations.formats.shared.write_result import WriteResult
from detseg.annotations.from_options import describe_table, load_table
from detseg.annotations.write_set import check_writable, write_set
from detseg.options import ConvertConfig
from detseg.runtime.reporter import Reporter, terminal


def convert(config: ConvertConfig, *, reporter: Reporter | None = None) -> WriteResult:
    """Write the data with its images in another format into a new folder, and report what the format cannot store.

    If something fails, for example for lack of space, nothing is left in the folder.

    Raises:
        DataError: data that cannot be used, an output folder that is not empty, or a table that the format cannot
            represent.
    """
    check_writable(config.to)
    reporter, table = reporter or terminal(), load_table(config)
    output = Path(config.output)
    reporter.lines(describe_table(table))
    written = write_set(table, output, config.to, reporter)
    losses = [f"  not supported by {config.to}: {line}" for line in written.notes.lines()]
    comparison = compare_tables(table, read(output, format=config.to, without_mask=config.without_mask), written)
    reporter.lines(losses)
    reporter.done(output, f"wrote {output}; {comparison}")
    return written


def compare_tables(table: AnnotationTable, again: AnnotationTable, written: WriteResult) -> str:
    """One line that compares ``table`` with the output, read ``again``: images, instances and box shifts, or labels."""
    text = f"read again: {len(again)} of {len(table)} images"
    row_of = {name: row for row, name in enumerate(again.media.tolist())}
    pairs = []
    for record, name in zip(table, written.images, strict=True):
        row = next((row_of[suffix] for suffix in _path_suffixes(name) if suffix in row_of), None)
        if row is not None:
            pairs.append((record, again[row]))
    if table.has_class_index:
        equal = sum(a.class_names(table.class_map) == b.class_names(again.class_map) for a, b in pairs)
        return f"{text}, {equal} with the same labels"
    text += f", {len(again.instance_rows())} of {len(table.instance_rows())} instances"
    shifts = [float(np.abs(b.boxes_xywh - a.boxes_xywh).max(initial=0)) for a, b in pairs if len(a) == len(b)]
    if not shifts:
        return f"{text}, no boxes to compare"
    result = "bit-identical" if max(shifts) == 0 else f"shifted by at most {max(shifts):.2g} pixels"
    return f"{text}, boxes {result} in the {len(shifts)} images with an unchanged number of instances"


def _path_suffixes(name: str) -> list[str]:
    """``a/b/c.jpg``, ``b/c.jpg``, ``c.jpg``: readers name images relative to different root folders."""
    parts = name.split("/")
    return ["/".join(parts[start:]) for start in range(len(parts))]
