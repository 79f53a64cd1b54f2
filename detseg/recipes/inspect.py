"""Summarize a data set, report its problems, and draw some of its images."""

from __future__ import annotations

import json
from pathlib import Path

from detseg.annotations.from_options import load_table
from detseg.doctor import Summary, image_values, inspect_images, summary
from detseg.options import InspectConfig
from detseg.reports.data_sheet import image_cards, object_cards
from detseg.reports.sheet import sheet, write_image
from detseg.reports.sheet_page import write_page
from detseg.runtime.files import write_json
from detseg.runtime.reporter import Reporter, silent, terminal


def inspect(config: InspectConfig, *, reporter: Reporter | None = None) -> Summary:
    """Read the data, decode every image once, report the summary, write summary.json, sheet.jpg and sheet.html.

    Data that ``train`` refuses is no exception here: it is among the ``errors`` of the summary.
    """
    reporter, table = reporter or terminal(), load_table(config)
    values = image_values(table, config.value_range)
    value_range = None if values is None else values.range
    data_summary = summary(table, inspect_images(table, value_range), values)
    output = Path(config.output or f"inspect-{Path(config.data).stem if config.data else 'demo'}")
    write_json(output / "summary.json", data_summary.to_dict())
    image_reporter = silent() if config.json else reporter  # the only line is the JSON
    cards = image_cards(
        table, config.records, config.seed, per_class=config.per_class, value_range=value_range, reporter=image_reporter
    )
    objects = object_cards(table, value_range=value_range)
    if config.json:
        reporter.line(json.dumps(data_summary.to_dict(), allow_nan=False))
    else:
        reporter.lines(data_summary.lines())
    if cards:
        shown = [*cards, *objects]
        image = sheet([card.image for card in shown], [card.caption for card in shown], reporter=image_reporter)
        write_image(output / "sheet.jpg", image)
        write_page(output / "sheet.html", table, shown)
        reporter.image(output / "sheet.jpg")
        if not config.json:
            files = ", ".join(str(output / name) for name in ("summary.json", "sheet.jpg"))
            reporter.done(output, f"wrote {files} and {output / 'sheet.html'}")
    return data_summary
