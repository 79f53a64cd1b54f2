"""Annotations of videos: the frames are records, in any format, and the labels fit the video."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from detseg.annotations import AnnotationTable, read
from detseg.annotations.fingerprint import differences, fingerprint
from detseg.annotations.formats.cvat.video import MORE_FRAMES
from detseg.annotations.split import CONSECUTIVE, VIDEO_PARTS, split
from detseg.datasets.dataset import Dataset
from detseg.errors import DataError
from detseg.images import decode_image
from detseg.media.video_files import frame_path
from detseg.preprocess import Preprocessing
from tests.media.small_videos import HEIGHT, WIDTH, number_of, write_video

COUNT = 20


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_video(tmp_path_factory.mktemp("video") / "clip.mp4", frames=COUNT, b_frames=2)


@pytest.fixture
def folder(tmp_path: Path, clip: Path) -> Path:
    (tmp_path / "clip.mp4").write_bytes(clip.read_bytes())
    return tmp_path


def write_cvat(path: Path, boxes: dict[int, tuple[int, int, int, int]], meta: str = "") -> Path:
    shapes = "".join(
        f'<box frame="{frame}" outside="0" occluded="0" keyframe="1" xtl="{a}" ytl="{b}" xbr="{c}" ybr="{d}"/>'
        for frame, (a, b, c, d) in boxes.items()
    )
    path.write_text(
        f"<annotations><version>1.1</version><meta><task>{meta}<labels><label><name>car</name></label></labels></task>"
        f'</meta><track id="0" label="car">{shapes}</track></annotations>'
    )
    return path


def write_coco(path: Path, images: list[dict[str, Any]], videos: list[dict[str, Any]] | None = None) -> Path:
    annotations = [
        {"id": i + 1, "image_id": image["id"], "category_id": 1, "bbox": [4, 4, 10, 10], "area": 100, "iscrowd": 0}
        for i, image in enumerate(images)
    ]
    content = {"images": images, "annotations": annotations, "categories": [{"id": 1, "name": "car"}]}
    path.write_text(json.dumps(content | ({} if videos is None else {"videos": videos})))
    return path


def shown(table: AnnotationTable) -> list[int]:
    """The numbers that the pixels of the records show."""
    return [number_of(decode_image(record.path)) for record in table]


def test_cvat(folder: Path) -> None:
    write_cvat(folder / "annotations.xml", {3: (1, 2, 11, 12), 7: (2, 3, 12, 13)})
    table = read(folder)
    assert table.media.tolist() == [frame_path("clip.mp4", number) for number in range(COUNT)]
    assert table.frame.tolist() == list(range(COUNT))
    assert table.group.tolist() == ["clip.mp4"] * COUNT
    assert table.instances_per_image().tolist() == [int(number in (3, 7)) for number in range(COUNT)]
    assert shown(table) == list(range(COUNT))
    assert table[3].name == "clip.mp4/frame_000003.png"
    assert table[3].stored_hw == (HEIGHT, WIDTH)
    assert table.notes.counts == {}
    assert len(table.files()) == COUNT


def test_cvat_with_a_range_of_frames(folder: Path) -> None:
    meta = "<size>4</size><start_frame>5</start_frame><stop_frame>14</stop_frame><frame_filter>step=3</frame_filter>"
    write_cvat(folder / "annotations.xml", {8: (1, 2, 11, 12)}, meta)
    table = read(folder)
    assert table.frame.tolist() == [5, 8, 11, 14]
    assert table.instances_per_image().tolist() == [0, 1, 0, 0]
    assert table.notes.counts == {MORE_FRAMES: 1}
    write_cvat(folder / "annotations.xml", {9: (1, 2, 11, 12)}, meta)
    with pytest.raises(DataError, match="frame 9: it is not among the annotated frames 5 to 14"):
        read(folder)


def test_cvat_of_several_videos(folder: Path) -> None:
    """Each file names its video, or has its name."""
    write_video(folder / "other.mkv", frames=5, first=100)
    write_cvat(folder / "other.xml", {1: (1, 2, 11, 12)})
    write_cvat(folder / "a.xml", {2: (1, 2, 11, 12)}, "<source>clip.mp4</source>")
    table = read(folder)
    assert len(table) == COUNT + 5
    assert table.group.tolist() == ["clip.mp4"] * COUNT + ["other.mkv"] * 5
    assert shown(table)[-5:] == [100, 101, 102, 103, 104]
    write_cvat(folder / "a.xml", {2: (1, 2, 11, 12)})
    with pytest.raises(DataError, match=r"a\.xml: it names no video of the 2 in .*write it into <meta><source>"):
        read(folder)


@pytest.mark.parametrize(
    ("boxes", "meta", "message"),
    [
        (
            {COUNT: (1, 2, 9, 9)},
            "",
            rf"frame {COUNT}: it is not among the annotated frames 0 to {COUNT - 1} ",
        ),
        (
            {1: (1, 2, 9, 9)},
            f"<size>{COUNT + 1}</size>",
            rf"last frame is {COUNT}, but clip.mp4 has {COUNT} frames",
        ),
        ({1: (1, 2, 9, 9)}, f"<stop_frame>{COUNT}</stop_frame>", r"may be shifted; use the video that was annotated"),
        ({1: (1, 2, 9, 9)}, "<stop_frame>1e300</stop_frame>", r"stop_frame 1e\+300 is not a frame number"),
    ],
)
def test_cvat_that_does_not_fit_the_video(
    boxes: dict[int, tuple[int, int, int, int]], meta: str, message: str, folder: Path
) -> None:
    write_cvat(folder / "annotations.xml", boxes, meta)
    with pytest.raises(DataError, match=message):
        read(folder)


@pytest.mark.parametrize(
    ("image", "videos"),
    [
        ({"file_name": "clip.mp4", "frame_id": 7}, None),
        ({"file_name": "somewhere/else/clip.mp4", "frame_index": "7"}, None),
        ({"file_name": "clip.mp4/frame_000007.png"}, None),
        ({"file_name": "clip/frame_000007.jpg"}, None),
        ({"file_name": "000008.jpg", "video_id": 3, "frame_id": 7}, [{"id": 3, "name": "clip.mp4"}]),
        ({"file_name": "000008.jpg", "video_id": "3", "frame_number": 7.0}, [{"id": 3, "file_name": "clip.mp4"}]),
    ],
)
def test_coco(image: dict[str, Any], videos: Any, folder: Path) -> None:
    write_coco(folder / "instances.json", [{"id": 1, "width": WIDTH, "height": HEIGHT, **image}], videos)
    table = read(folder)
    assert (table.media.tolist(), table.frame.tolist()) == (["clip.mp4/frame_000007.png"], [7])
    assert table.group.tolist() == ["clip.mp4"]
    assert shown(table) == [7]
    assert table.boxes_xywh.tolist() == [[4, 4, 10, 10]]


@pytest.mark.parametrize(
    ("image", "message"),
    [
        ({}, "no frame number; state the number of the frame, from 0, as frame_id"),
        ({"frame_id": 3, "frame_index": 4}, "different frame numbers in frame_id and frame_index"),
        ({"frame_id": -1}, "frame_id '-1' is not a frame number"),
        ({"frame_id": 1.5}, "frame_id '1.5' is not a frame number"),
        (
            {"frame_id": COUNT},
            f"1 of 1 labelled frames are past the end of clip.mp4: frame {COUNT}.*subtract 1",
        ),
        ({"frame_id": 10**8}, "1 of 1 labelled frames are past the end of clip.mp4: .*use the whole video, or remove"),
        ({"frame_id": 1, "file_name": "gone.mp4"}, "1 of 1 images are not in .*gone.mp4"),
        ({"frame_id": 1, "width": 99}, "differs from the annotated size"),
    ],
)
def test_coco_that_does_not_fit_the_video(image: dict[str, Any], message: str, folder: Path) -> None:
    image = {"id": 1, "width": WIDTH, "height": HEIGHT, "file_name": "clip.mp4", **image}
    write_coco(folder / "instances.json", [image])
    with pytest.raises(DataError, match=message):
        read(folder)


def test_coco_images_that_exist_are_used(folder: Path) -> None:
    """Frames that were extracted, next to the video that they are from."""
    (folder / "000007.ppm").write_bytes(b"P6 16 16 255 " + bytes(768))
    image = {"id": 1, "file_name": "000007.ppm", "width": 16, "height": 16, "video_id": 3, "frame_id": 7}
    write_coco(folder / "instances.json", [image], [{"id": 3, "name": "clip.mp4"}])
    table = read(folder)
    assert (table.media.tolist(), table.frame.tolist()) == (["000007.ppm"], [-1])


@pytest.mark.parametrize(
    "text",
    [
        "video,frame,x1,y1,x2,y2,label\nclip.mp4,3,4,4,14,14,car\nclip.mp4,5,4,4,14,14,car\n",
        "Frame ID;label;Video Name;xmin;ymin;xmax;ymax\n3.0;car;clip;4;4;14;14\n5;car;clip;4;4;14;14\n",
        "filename,frame,x,y,w,h,label\na/clip.mp4,3,4,4,10,10,car\na/clip.mp4,5,4,4,10,10,car\n",
    ],
)
def test_csv_boxes(text: str, folder: Path) -> None:
    (folder / "boxes.csv").write_text(text)
    table = read(folder)
    assert table.media.tolist() == ["clip.mp4/frame_000003.png", "clip.mp4/frame_000005.png"]
    assert shown(table) == [3, 5]
    assert table.boxes_xywh.tolist() == [[4, 4, 10, 10]] * 2


def test_csv_labels(folder: Path) -> None:
    """Any label columns."""
    (folder / "labels.csv").write_text("video,frame,action,place\nclip.mp4,0,run,road\nclip.mp4,19,walk,road\n")
    table = read(folder)
    assert [(field.name, field.class_map.names) for field in table.fields] == [
        ("action", ("run", "walk")),
        ("place", ("road",)),
    ]
    assert shown(table) == [0, 19]
    assert table.group.tolist() == ["clip.mp4"] * 2


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("video,frame,action\nclip.mp4,x,run\n", r"labels.csv, line 2: frame 'x' is not a frame number"),
        ("video,frame,action\nclip.mp4,-1,run\n", r"labels.csv, line 2: frame '-1' is not a frame number"),
        ("video,frame,action\n,1,run\n", r"labels.csv, line 2: the image name is empty"),
        ("video,frame,action\nclip.mp4,1\n", r"labels.csv, line 2: 1 cells, expected 2"),
        (f"video,frame,action\nclip.mp4,1,run\nclip.mp4,{COUNT},run\n", r"counted from 1, subtract 1 from each"),
        (f"video,frame,action\nclip.mp4,0,run\nclip.mp4,{COUNT},run\n", r"past the end of clip.mp4.*use the whole vi"),
    ],
)
def test_csv_that_does_not_fit_the_video(text: str, message: str, folder: Path) -> None:
    (folder / "labels.csv").write_text(text)
    with pytest.raises(DataError, match=message):
        read(folder / "labels.csv")


def test_csv_with_image_files_is_as_before(folder: Path) -> None:
    (folder / "a.ppm").write_bytes(b"P6 4 4 255 " + bytes(48))
    (folder / "labels.csv").write_text("filename,frame,action\na.ppm,1,run\n")
    assert read(folder).media.tolist() == ["a.ppm"]


def test_a_damaged_video_is_one_error(folder: Path) -> None:
    (folder / "clip.mp4").write_bytes((folder / "clip.mp4").read_bytes()[:200])
    write_cvat(folder / "annotations.xml", {3: (1, 2, 11, 12)})
    with pytest.raises(DataError, match=r"clip\.mp4: corrupt or truncated video .*convert it again"):
        read(folder)


def labels_of(folder: Path, videos: dict[str, int]) -> AnnotationTable:
    for name, count in videos.items():
        write_video(folder / name, frames=count)
    lines = [f"{name},{number},{number % 2}" for name, count in videos.items() for number in range(count)]
    (folder / "labels.csv").write_text("\n".join(["video,frame,action", *lines]))
    return read(folder)


def test_the_frames_of_a_video_stay_together(tmp_path: Path) -> None:
    table = labels_of(tmp_path, {"a.mp4": 10, "b.mp4": 12, "c.mp4": 14, "d.mkv": 16})
    splits = split(table, seed=1, test=0.2)
    videos = [set(part.group.tolist()) for part in splits.values()]
    assert len(splits) == 3
    assert sum(map(len, videos)) == len(set.union(*videos)) == 4
    assert not any(CONSECUTIVE in part.notes.counts for part in splits.values())


def test_parts_of_a_single_video(tmp_path: Path) -> None:
    table = labels_of(tmp_path, {"a.mp4": 40})
    splits = split(table, seed=1)
    assert splits["train"].notes.counts[CONSECUTIVE] == 1
    val = splits["val"].frame.tolist()
    assert len(val) == 8
    starts = [number for number in val if number - 1 not in val]
    assert len(starts) <= 8 * VIDEO_PARTS // 40, "control: single frames would have more"


def test_samples_and_fingerprint(folder: Path) -> None:
    write_cvat(folder / "annotations.xml", {3: (1, 2, 11, 12)})
    table = read(folder)
    dataset = Dataset(table, Preprocessing(), task="detect")
    image, target = dataset[3]
    assert number_of(np.moveaxis(image.numpy(), 0, 2)) == 3
    assert target["boxes"].tolist()[0][0] > 0
    before = fingerprint({"train": table})
    assert differences(before, fingerprint({"train": read(folder)}), {"train": table}) == []
    write_video(folder / "clip.mp4", frames=COUNT, first=1)
    after = read(folder)
    assert "the file of 20 images" in differences(before, fingerprint({"train": after}), {"train": after})[0]
