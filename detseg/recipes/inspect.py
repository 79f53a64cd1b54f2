"""Summarize a data set, report its problems, and draw some of its images."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from detseg.annotations.from_options import load_table
from detseg.doctor import Summary, image_values, inspect_images, summary
from detseg.errors import DataError
from detseg.images import decode_image
from detseg.options import InspectConfig
from detseg.reports.draw import draw
from detseg.reports.sheet import sheet, write_image
from detseg.runtime.files import write_json
from detseg.runtime.reporter import Reporter, silent, terminal


def inspect(config: InspectConfig, *, reporter: Reporter | None = None) -> Summary:
    """Read the data, decode every image once, report the summary, write summary.json and sheet.jpg.

    Data that ``train`` refuses is no exception here: it is among the ``errors`` of the summary.
    """
    reporter, table = reporter or terminal(), load_table(config)
    values = image_values(table, config.value_range)
    value_range = None if values is None else values.range
    data_summary = summary(table, inspect_images(table, value_range), values)
    output = Path(config.output or f"inspect-{Path(config.data).stem if config.data else 'demo'}")
    write_json(output / "summary.json", data_summary.to_dict())
    count = min(config.records, len(table))
    rows = sorted(np.random.default_rng(config.seed).permutation(len(table))[:count].tolist())
    image_reporter = silent() if config.json else reporter  # the only line is the JSON
    images, titles = [], []
    for record in (table[row] for row in rows):
        try:
            image = decode_image(record.path, value_range=value_range)
        except (DataError, OSError):
            continue  # already reported in the findings
        skeleton = table.keypoint_schema.skeleton if table.keypoint_schema else ()
        images.append(draw(image, record, table.class_map, skeleton=skeleton, reporter=image_reporter))
        titles.append(record.name)
    if config.json:
        reporter.line(json.dumps(data_summary.to_dict(), allow_nan=False))
    else:
        reporter.lines(data_summary.lines())
    if images:
        write_image(output / "sheet.jpg", sheet(images, titles, reporter=image_reporter))
        reporter.image(output / "sheet.jpg")
        if not config.json:
            reporter.done(output, f"wrote {output / 'summary.json'} and {output / 'sheet.jpg'}")
    return data_summary
