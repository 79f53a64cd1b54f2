"""Find the frames that a CVAT XML file of a video annotates: images of them, or the video itself."""

from __future__ import annotations

import re
from pathlib import PurePosixPath
from xml.etree.ElementTree import Element

from detseg.annotations.formats.cvat.shapes import parse_number
from detseg.annotations.image_lookup import ImageLookup, ImageReference
from detseg.annotations.listing import links_hint
from detseg.annotations.repair_log import RepairLog
from detseg.errors import DataError
from detseg.media.video_files import frame_path
from detseg.media.video_index import video_index

MORE_FRAMES = "video with frames after the last annotated one, which are not read: check that labels are not shifted"


def annotated_frames(root: Element, file: str, lookup: ImageLookup, notes: RepairLog) -> dict[int, str]:
    """Frame number -> its image, ascending: ``frame_000010.png`` in the folder, or else those of the video.

    The video is the one that the file names, or that has the name of the file, or else the only one in the folder. Of
    a video, the frames that the task states (first, last, step) are read; without that, all.

    Raises:
        DataError: neither images nor a video; two images with one number; a video that is shorter than the task.
    """
    by_number: dict[int, str] = {}
    for image in lookup.files:
        if match := re.search(r"(?:^|[_\-/])0*(\d{1,9})\.[a-zA-Z]+$", image):
            first = by_number.setdefault(int(match[1]), image)
            if first != image:
                raise DataError(f"{file}: {first} and {image} are both frame {match[1]}; keep one of them")
    if by_number:
        return dict(sorted(by_number.items()))
    video = _find_video(root, file, lookup)
    return {number: frame_path(video, number) for number in _numbers(root, file, lookup, video, notes)}


def _find_video(root: Element, file: str, lookup: ImageLookup) -> str:
    names = [(element.text or "").strip() for element in root.findall("./meta//source")]
    names = [*names, PurePosixPath(file).stem]
    for name in filter(None, names):
        matches, _ = lookup.videos.find(ImageReference(name, file.rpartition("/")[0]))
        if len(matches) == 1:
            return matches[0]
    videos = lookup.videos.files
    if len(videos) == 1:
        return videos[0]
    if videos:
        raise DataError(
            f"{file}: it names no video of the {len(videos)} in {lookup.root} ({', '.join(videos[:3])}); give the "
            "file the name of its video, or write it into <meta><source>"
        )
    raise DataError(
        f"{file}: the annotations of a video, but neither a video nor images of its frames (frame_000000.png, ...) in "
        f"{lookup.root}; put the video there, or export with images from CVAT{links_hint(lookup.links)}"
    )


def _numbers(root: Element, file: str, lookup: ImageLookup, video: str, notes: RepairLog) -> range:
    """The annotated frames of a video, checked against its length."""
    count = len(video_index(lookup.root / video))
    first = _whole(root, "start_frame", file, 0)
    last = _whole(root, "stop_frame", file, -1)
    step = re.search(r"step\s*=\s*(\d{1,9})", root.findtext("./meta//frame_filter") or "")
    by = max(int(step[1]), 1) if step else 1
    if last < 0:
        size = _whole(root, "size", file, 0)
        last = first + (size - 1) * by if size else count - 1
    if last >= count:
        raise DataError(
            f"{file}: its last frame is {last}, but {video} has {count} frames, 0 to {count - 1}: labels are past its "
            "end, and may be shifted; use the video that was annotated, as it was uploaded"
        )
    if last + by < count:
        notes.add(MORE_FRAMES, f"{video}: annotated up to frame {last}, {count} frames")
    return range(first, last + 1, by)


def _whole(root: Element, name: str, file: str, default: int) -> int:
    """A number of the task's description; ``default`` if it is not stated."""
    text = next((element.text for element in root.findall(f"./meta//{name}") if (element.text or "").strip()), None)
    if text is None:
        return default
    value = parse_number(text, f"{file}, {name}")
    if not (value.is_integer() and 0 <= value < 10**9):
        raise DataError(f"{file}: {name} {value:g} is not a frame number; correct it, or export again")
    return int(value)
