"""Check the boxes of an MP4 or MOV file before FFmpeg reads it: small tables can state billions of frames, for which
it would reserve memory."""

from __future__ import annotations

import os
from typing import BinaryIO

from detseg.errors import DataError

MAX_SAMPLES = 20_000_000
"""Most samples of all tracks together, of which video frames are a part (100 million would take 4 GB of memory)."""

MAX_BOXES = 2_000_000
MAX_DEPTH = 16

_CONTAINERS = frozenset(
    (b"moov", b"trak", b"mdia", b"minf", b"stbl", b"moof", b"traf", b"mvex", b"edts", b"udta", b"dinf", b"tref")
)
_COUNTS = {b"stsz": 8, b"stz2": 8, b"trun": 4}
"""Boxes of samples -> where in their content the number of samples is."""

_MAKE_AGAIN = "make it again (ffmpeg -i OLD -c copy NEW.mp4), if you trust it"


def check_boxes(file: BinaryIO, name: str) -> None:
    """Check the numbers of boxes and of samples that the file states; left at its start.

    Raises:
        DataError: too many, too deeply nested, or a compressed header.
    """
    size = file.seek(0, os.SEEK_END)
    boxes = samples = 0
    ends = [size]
    position = 0
    while ends:
        if position + 8 > ends[-1]:
            position = ends.pop()
            continue
        boxes += 1
        file.seek(position)
        head = file.read(32)
        length, kind, start = int.from_bytes(head[:4], "big"), head[4:8], 8
        if length == 1:
            length, start = int.from_bytes(head[8:16], "big"), 16
        elif length == 0:
            length = ends[-1] - position
        if length < start:
            position = ends.pop()  # no box: the rest of its container is not read
            continue
        if kind == b"cmov":
            raise DataError(f"{name}: its header is compressed (cmov), which is not read; {_MAKE_AGAIN}")
        if kind in _COUNTS:
            place = start + _COUNTS[kind]
            samples += int.from_bytes(head[place : place + 4], "big")
        if boxes > MAX_BOXES or samples > MAX_SAMPLES or len(ends) > MAX_DEPTH:
            what = f"{samples} samples" if samples > MAX_SAMPLES else f"{boxes} boxes in {len(ends)} levels"
            raise DataError(f"{name}: the file states {what}, which is too much to read; {_MAKE_AGAIN}")
        if kind in _CONTAINERS:
            ends.append(min(position + length, ends[-1]))
            position += start
        else:
            position += length
    file.seek(0)
