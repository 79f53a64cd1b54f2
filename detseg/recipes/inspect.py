"""Summarize a data set, report its problems, draw some of its images, and write a repaired copy."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

from detseg.annotations import AnnotationTable, read
from detseg.annotations.formats.all_formats import format_named
from detseg.annotations.from_options import load_table
from detseg.annotations.layout import find_format
from detseg.annotations.write_set import check_writable, write_set
from detseg.doctor import Finding, Summary, image_values, inspect_images, inspect_table, mended, reader_changes, summary
from detseg.doctor.findings import counts_line, kind_lines
from detseg.doctor.video import VideoSummary, inspect_video
from detseg.errors import DataError
from detseg.media.video import Video
from detseg.media.video_files import is_video
from detseg.options import InspectConfig
from detseg.reports.data_sheet import image_cards, object_cards, problem_cards
from detseg.reports.sheet import sheet, write_image
from detseg.reports.sheet_page import write_page
from detseg.reports.shown_images import ShownProblem
from detseg.runtime.files import write_json
from detseg.runtime.reporter import Reporter, silent, terminal
from detseg.short_text import counted
from detseg.synthetic.demo.render import demo_folder


def inspect(config: InspectConfig, *, reporter: Reporter | None = None) -> Summary | VideoSummary:
    """Read the data, decode every image once, report the summary, write summary.json, sheet.jpg and sheet.html.

    With ``fix`` also write a repaired copy of the data, and ``changes.json``; the findings that are returned are then
    those that are left in the copy. Data that ``train`` refuses is no
    exception here: it is among the ``errors`` of the summary. Data that cannot be read is: then ``summary.json``
    contains this error as the only finding. Of a video file, the frames are counted and decoded.
    """
    reporter = reporter or terminal()
    if is_video(config.data or "") and Path(config.data or "").is_file():
        return _inspect_video(config, reporter)
    output = Path(config.output or f"inspect-{Path(config.data).stem if config.data else 'demo'}")
    if config.fix:
        check_writable(_format_of_copy(config))
        config = replace(config, bad_instances="mend", missing_images="drop")
    try:
        table = load_table(config)
        values = image_values(table, config.value_range)
    except DataError as error:
        finding = Finding.of_text("error", "data that cannot be read", config.data, str(error))
        write_json(output / "summary.json", {"source": config.data, "findings": [finding.to_dict()]})
        raise
    value_range = None if values is None else values.range
    findings = inspect_images(table, value_range)
    data_summary = summary(table, findings, values, image_size=config.image_size)
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
        problems = [_shown(finding) for finding in data_summary.findings]
        problem_images = problem_cards(table, problems, value_range=value_range)
        write_page(output / "sheet.html", table, [*problem_images, *shown], problems)
        reporter.image(output / "sheet.jpg")
        if not config.json:
            files = ", ".join(str(output / name) for name in ("summary.json", "sheet.jpg"))
            reporter.done(output, f"wrote {files} and {output / 'sheet.html'}")
    if config.fix:
        left = _write_copy(config, table, findings, output, image_reporter)
        return replace(data_summary, findings=tuple(left))
    return data_summary


def _shown(finding: Finding) -> ShownProblem:
    return ShownProblem(finding.severity, finding.kind, finding.image, finding.row, finding.message)


def _format_of_copy(config: InspectConfig) -> str:
    if config.to:
        return config.to
    layout = find_format(config.data or demo_folder(), config.format, config.follow_links)
    return layout.format if format_named(layout.format).write else "coco"


def _write_copy(
    config: InspectConfig, table: AnnotationTable, findings: list[Finding], output: Path, reporter: Reporter
) -> list[Finding]:
    """Write the repaired copy and the changes; the copy is read again, and what is left is reported and returned."""
    assert config.fix is not None
    result, changes = mended(table, findings)
    if result.has_class_index and config.to is None:
        format = "csv"  # the only one with classes of whole images
    else:
        format = _format_of_copy(config)
    folder = Path(config.fix)
    written = write_set(result, folder, format, reporter)
    again = read(folder, format=format)
    unmended = [finding for finding in findings if not finding.fix]
    left = [finding for finding in (*unmended, *inspect_table(again)) if finding.severity != "note"]
    changes = [*reader_changes(table), *changes]
    losses = written.notes.lines()
    content = {
        "source": table.source,
        "copy": str(folder),
        "format": format,
        "changes": [change.to_dict() for change in changes],
        "not_supported": losses,
        "left": [finding.to_dict() for finding in left],
    }
    write_json(output / "changes.json", content)
    reporter.lines([f"not supported by {format}: {line}" for line in losses])
    reporter.lines([f"left to you: {line}" for line in kind_lines(left)])
    number = f"{counted(len(changes), 'change')}, listed in {output / 'changes.json'}"
    result_line = f"{counted(len(again), 'image')}, {counts_line(left) or 'no problems'}"
    reporter.done(folder, f"wrote {folder} ({format}): {number}; read again: {result_line}")
    return left


def _inspect_video(config: InspectConfig, reporter: Reporter) -> VideoSummary:
    """Report the summary of a video, write summary.json, and sheet.jpg of frames at equal distances."""
    assert config.data is not None
    video_summary = inspect_video(config.data, reporter=silent() if config.json else reporter)
    output = Path(config.output or f"inspect-{Path(config.data).stem}")
    write_json(output / "summary.json", video_summary.to_dict())
    if config.json:
        reporter.line(json.dumps(video_summary.to_dict(), allow_nan=False))
        return video_summary
    reporter.lines(video_summary.lines())
    video, damaged = Video(config.data), {error.number for error in video_summary.errors}
    count = min(config.records, len(video))
    numbers = [n for n in (i * len(video) // count for i in range(count)) if n not in damaged]
    titles = [f"frame {number}, {video.seconds(number):.2f} s" for number in numbers]
    write_image(output / "sheet.jpg", sheet([video.frame(number) for number in numbers], titles, reporter=reporter))
    reporter.image(output / "sheet.jpg")
    reporter.done(output, f"wrote {output / 'summary.json'} and {output / 'sheet.jpg'}")
    return video_summary
