"""Read the columns ``video, frame`` of a CSV table as one column of image paths."""

from __future__ import annotations

from collections.abc import Sequence

from detseg.annotations.formats.csv.columns import ID_COLUMNS, PATH_COLUMNS, canonical, column_of
from detseg.annotations.listing import is_image
from detseg.errors import DataError
from detseg.media.video_files import frame_path, is_video

VIDEO_COLUMNS = (
    "video", "video_name", "video_file", "video_filename", "video_path", "videoname", "video_id", "clip", "clip_name",
)  # fmt: skip
FRAME_COLUMNS = ("frame", "frame_id", "frame_number", "frame_index", "frame_no", "frame_num", "frame_idx", "frameid")

Rows = list[tuple[int, list[str]]]


def with_frame_paths(header: list[str], rows: Rows, name: str, strict: bool) -> tuple[list[str], Rows]:
    """Header and rows with a first column ``filename``, ``clip.mp4/frame_000123.png``, in place of two columns.

    These are a frame column and either a video column or a path column with videos. A table with image files in a
    path column stays as it is.

    Args:
        header: names of columns.
        rows: line numbers and cells.
        name: of the file in messages.
        strict: numbers are checked; else any text is accepted, to detect the kind of the file.

    Raises:
        DataError: a frame that is not a whole number from 0.
    """
    frame, video = column_of(header, FRAME_COLUMNS), _video_column(header, rows)
    if frame is None or video is None or frame == video:
        return header, rows
    others = [column for column in range(len(header)) if column not in (frame, video)]
    used = [
        (line, [_path(cells, video, frame, f"{name}, line {line}" if strict else ""), *_rest(cells, others, header)])
        for line, cells in rows
    ]
    return ["filename", *(header[column] for column in others)], used


def _video_column(header: Sequence[str], rows: Rows) -> int | None:
    video, path = column_of(header, VIDEO_COLUMNS), column_of(header, PATH_COLUMNS)
    if path is None or canonical(header)[path] in ID_COLUMNS:
        return video
    cells = [row[path] for _, row in rows if path < len(row)]
    if cells and all(map(is_video, cells)):
        return path
    return None if all(map(is_image, cells)) else video


def _path(cells: list[str], video: int, frame: int, where: str) -> str:
    """ "" for a row without a video, of which the reader complains."""
    name, text = (cells[column] if column < len(cells) else "" for column in (video, frame))
    number = text.removesuffix(".0")
    if not (number.isascii() and number.isdecimal() and len(number) <= 9):
        if where and name:
            raise DataError(f"{where}: frame {text[:40]!r} is not a frame number; write a whole number from 0")
        number = "0"
    return frame_path(name, int(number)) if name else ""


def _rest(cells: list[str], others: list[int], header: Sequence[str]) -> list[str]:
    """The other cells; more or fewer than the header has stay more or fewer."""
    return [cells[column] for column in others if column < len(cells)] + cells[len(header) :]
