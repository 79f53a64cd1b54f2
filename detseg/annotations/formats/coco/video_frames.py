"""Name the images of a COCO file that are frames of videos: ``video_id`` and ``frame_id``, or a video as file name."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from detseg.annotations.formats.coco.json_file import CocoFile, CocoImage
from detseg.annotations.image_lookup import ImageLookup, ImageReference
from detseg.errors import DataError
from detseg.media.video_files import frame_path, is_video

NUMBERS = ("frame_id", "frame_index", "frame_number", "frame")
"""Keys of the frame number, which counts from 0."""


def name_frames(data: CocoFile, folder: Path, source: str, follow_links: bool) -> None:
    """Replace ``file_name`` of frames of videos by ``clip.mp4/frame_000123.png``.

    An image is a frame if its file name is a video, or if its ``video_id`` is that of an entry of ``videos`` with the
    name of a video; in the second case the image files are used instead if the first of them exists.

    Args:
        data: changed in place.
        folder: the data folder.
        source: name of the file in messages.
        follow_links: follow links that point outside the folder.

    Raises:
        DataError: a frame without a number, with two different ones, or with one that is no whole number.
    """
    by_id = {_key(video.get("id")): _video_name(video) for video in data.videos if isinstance(video, dict)}
    direct = [image for image in data.images if is_video(image.file_name)]
    for image in direct:
        image.file_name = frame_path(image.file_name, _number(image, source))
    if direct or not any(by_id.values()):
        return
    listed = [(image, by_id.get(_key(image.video_id), "")) for image in data.images]
    frames = [(image, video) for image, video in listed if video and any(_numbers(image))]
    if not frames or ImageLookup(folder, follow_links).find(ImageReference(frames[0][0].file_name))[0]:
        return
    for image, video in frames:
        image.file_name = frame_path(video, _number(image, source))


def _key(value: Any) -> str:
    """An id as text: some exporters write numbers in quotes."""
    return "" if value is None else str(value)


def _video_name(video: dict[str, Any]) -> str:
    """The name of an entry of ``videos`` if it is that of a video file."""
    names = [video.get(key) for key in ("file_name", "name")]
    return next((name for name in names if isinstance(name, str) and is_video(name)), "")


def _numbers(image: CocoImage) -> list[str]:
    return [_key(getattr(image, name)) for name in NUMBERS]


def _number(image: CocoImage, source: str) -> int:
    where = f"{source}, image {image.id} ({image.file_name})"
    stated = {value: name for name, value in zip(NUMBERS, _numbers(image), strict=True) if value}
    if len(stated) != 1:
        problem = f"different frame numbers in {' and '.join(stated.values())}" if stated else "no frame number"
        raise DataError(f"{where}: {problem}; state the number of the frame, from 0, as frame_id")
    text = next(iter(stated)).removesuffix(".0")
    if not (text.isascii() and text.isdecimal() and len(text) <= 9):
        raise DataError(f"{where}: {stated[next(iter(stated))]} {text[:40]!r} is not a frame number; correct it")
    return int(text)
