"""Read the headers of image files."""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from detseg.errors import DataError
from detseg.images import ImageHeader, read_header
from detseg.media.video_files import is_frame_in_video, split_frame
from detseg.media.video_index import video_index
from detseg.runtime.reporter import progress

NAMED = 5
"""Number of file names listed in a message."""

COUNTED_FROM_1 = "if the frames are counted from 1, subtract 1 from each number"

THREADS = 8
"""Threads that read headers: opening a file waits for the disk, most of all on network storage."""


def read_headers(root: Path, names: Sequence[str], source: str) -> list[ImageHeader]:
    """Read the headers of many files in several threads, with a progress bar on a terminal.

    Of frames of videos, first all numbers are checked, see :func:`check_frames`.

    Raises:
        DataError: files that cannot be read as images (lists their number and the first five).
    """
    check_frames(root, names, source)
    results = _headers_or_errors(root, names, f"{source}: image sizes")
    broken = [f"{name} ({header})" for name, header in zip(names, results, strict=True) if isinstance(header, str)]
    if broken:
        raise DataError(
            f"{source}: {len(broken)} of {len(names)} images cannot be read: {first_few(broken)}; replace the files or "
            "remove the entries"
        )
    return [header for header in results if isinstance(header, ImageHeader)]


def unreadable(root: Path, names: Sequence[str]) -> dict[str, str]:
    """Name -> error of the files that are not images."""
    results = zip(names, _headers_or_errors(root, names, "image files"), strict=True)
    return {name: result for name, result in results if isinstance(result, str)}


def _headers_or_errors(root: Path, names: Sequence[str], description: str) -> list[ImageHeader | str]:
    def read(name: str) -> ImageHeader | str:
        try:
            return read_header(root / name)
        except (DataError, OSError) as error:
            return str(error)

    with ThreadPoolExecutor(THREADS) as pool:
        return list(progress(pool.map(read, names), description, total=len(names)))


def first_few(items: Sequence[str]) -> str:
    """The first ``NAMED`` items, comma separated."""
    return ", ".join(items[:NAMED]) + (", ..." if len(items) > NAMED else "")


def check_frames(root: Path, names: Sequence[str], source: str) -> None:
    """Check that the videos of ``names`` have all their frames; other names are left out.

    Raises:
        DataError: a video cannot be read, or is shorter than the numbers of its frames.
    """
    numbers: dict[str, list[int]] = {}
    for name in names:
        parts = split_frame(name)
        if parts is not None and is_frame_in_video(root / name):
            numbers.setdefault(parts[0], []).append(parts[1])
    for video, frames in numbers.items():
        count = len(video_index(root / video))
        late = sorted(frame for frame in frames if frame >= count)
        if late:
            one = late == [count] and min(frames) > 0
            raise DataError(
                f"{source}: {len(late)} of {len(frames)} labelled frames are past the end of {video}: frame "
                f"{late[0]}, but it has {count} frames, 0 to {count - 1}; "
                + (COUNTED_FROM_1 if one else "use the whole video, or remove their labels")
            )


def annotated_images(images: str | os.PathLike[str] | None) -> str:
    """The remedy for images whose size is not the annotated one."""
    if images is None:
        return "pass the images that were annotated (--images)"
    return f"replace the files in {images} by the images that were annotated"
