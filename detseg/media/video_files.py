"""Recognize video files, and name their frames: a video is a folder of frames, ``clip.mp4/frame_000123.png``."""

from __future__ import annotations

import os
import re
from typing import BinaryIO

from detseg.errors import DataError
from detseg.media.iso_boxes import check_boxes

VIDEO_SUFFIXES = (
    ".mp4", ".m4v", ".mov", ".3gp", ".mkv", ".webm", ".avi", ".ts", ".mts", ".m2ts", ".mpg", ".mpeg", ".flv", ".wmv",
    ".ogv", ".h264", ".264", ".h265", ".265", ".hevc", ".mjpeg", ".mjpg",
)  # fmt: skip
"""File suffixes that count as videos when a folder is searched, in lower case."""

REPLACE_VIDEO = "convert it again (ffmpeg -i OLD -c:v libx264 NEW.mp4), or use another file"

_FRAME = re.compile(r"frame_(\d{1,9})\.[a-z]+", re.IGNORECASE | re.ASCII)
_SIGNATURES = (
    (re.compile(rb"....(ftyp|moov|mdat|wide|free|skip|pnot)", re.DOTALL), "mov"),
    (re.compile(rb"\x1a\x45\xdf\xa3"), "matroska"),
    (re.compile(rb"RIFF....AVI ", re.DOTALL), "avi"),
    (re.compile(rb"G.{187}G", re.DOTALL), "mpegts"),
    (re.compile(rb".{4}G.{191}G", re.DOTALL), "mpegts"),
    (re.compile(rb"\x00\x00\x01\xba"), "mpeg"),
    (re.compile(rb"FLV"), "flv"),
    (re.compile(rb"\x30\x26\xb2\x75\x8e\x66\xcf\x11"), "asf"),
    (re.compile(rb"OggS"), "ogg"),
    (re.compile(rb"\xff\xd8\xff"), "mjpeg"),
)
_RAW = re.compile(rb"\x00{2,3}\x01")
_HEAD = 512


def is_video(name: str | os.PathLike[str]) -> bool:
    """Whether a file is a video, by its suffix."""
    return os.fspath(name).lower().endswith(VIDEO_SUFFIXES)


def frame_name(number: int) -> str:
    """``frame_000123.png``: the name of frame ``number``, counted from 0 in the order of display."""
    return f"frame_{number:06d}.png"


def frame_number(name: str) -> int | None:
    """The number in the name of a frame (with any suffix of an image); None for another name."""
    match = _FRAME.fullmatch(name)
    return None if match is None else int(match[1])


def frame_path(video: str, number: int) -> str:
    """The path of a frame, ``clip.mp4/frame_000123.png``."""
    return f"{video}/{frame_name(number)}"


def split_frame(path: str | os.PathLike[str]) -> tuple[str, int] | None:
    """The video and the frame number that the path of a frame consists of; None if it is no such path.

    Only the text is examined: the "video" may be a folder of extracted frames.
    """
    video, _, name = os.fspath(path).rpartition("/")
    number = frame_number(name)
    return (video, number) if number is not None and is_video(video) else None


def is_frame_in_video(path: str | os.PathLike[str]) -> bool:
    """Whether a path is that of a frame, and its video is a file."""
    parts = split_frame(path)
    return parts is not None and os.path.isfile(parts[0])  # noqa: PTH113  (called for every image)


def demuxer_of(file: BinaryIO, name: str) -> str:
    """FFmpeg's name of the container format, from the first bytes; for raw H.264 and H.265 also from the suffix. What
    the container states is limited, where FFmpeg does not limit it.

    Only formats that hold the video itself: playlists and scripts that name other files or addresses are refused, and
    so FFmpeg never has to guess a format.

    Raises:
        DataError: another format, or an empty file.
    """
    file.seek(0)
    head = file.read(_HEAD)
    if not head:
        raise DataError(f"{name}: the file is empty; remove it or download it again")
    for pattern, demuxer in _SIGNATURES:
        if pattern.match(head):
            if demuxer == "mov":
                check_boxes(file, name)
            return demuxer
    if _RAW.match(head):
        return "hevc" if name.lower().endswith((".h265", ".265", ".hevc")) else "h264"
    raise DataError(f"{name}: not a video of a supported format (MP4, MOV, MKV, WebM, AVI, MPEG, ...); {REPLACE_VIDEO}")
