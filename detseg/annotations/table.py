"""Annotation table: all annotations of a data set in columns. No pixels, no torch."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from detseg.annotations.lost_objects import LostObjects
from detseg.annotations.repair_log import RepairLog
from detseg.annotations.segmentation import Segmentation, SegmentationColumn
from detseg.annotations.text_ids import TextIds
from detseg.classes import ClassMap, LabelField
from detseg.keypoints import KeypointSchema
from detseg.media.video_files import split_frame
from detseg.old_names import moved_function
from detseg.orientation import upright_hw
from detseg.short_text import counted, listed, tail, with_classes

Strings = np.ndarray[Any, np.dtypes.StringDType]


@dataclass(frozen=True)
class Record:
    """One annotated image, as a small view of a table. All coordinates are upright pixels.

    Attributes:
        record: row in the full table that all subsets come from; randomness depends on it.
        image_id: id of the image in the source.
        path: file to open with :mod:`detseg.media.files`; it may be in an archive, or a frame of a video,
            ``clip.mp4/frame_000123.png``.
        stored_hw: height and width as stored in the file; ``size_hw`` is upright.
        orientation: EXIF orientation 1..8 of the stored pixels.
        class_index: int64 [T], one for each label field; -1 if there is no label.
        boxes_xywh: float64 [N, 4].
        labels: int64 [N], 1..K.
        areas: float64 [N], square pixels of the upright original.
        iscrowd, ignore: bool [N]. Not used in training, and not counted as missed in evaluation.
        difficult: bool [N]. Used in training, but not counted as missed in evaluation, as in Pascal VOC.
        segmentations: list of N polygons, RLEs or None.
        keypoints: float64 [N, P, 3] x, y, visibility 0..2; None without a keypoint schema.
        label_fields: the T fields of ``class_index`` if there are several; else empty.
    """

    record: int
    image_id: int
    path: Path
    member: str
    frame: int
    stored_hw: tuple[int, int]
    size_hw: tuple[int, int]
    orientation: int
    group: str
    split: str
    class_index: npt.NDArray[np.int64]
    boxes_xywh: npt.NDArray[np.float64]
    labels: npt.NDArray[np.int64]
    areas: npt.NDArray[np.float64]
    iscrowd: npt.NDArray[np.bool_]
    ignore: npt.NDArray[np.bool_]
    difficult: npt.NDArray[np.bool_]
    segmentations: list[Segmentation]
    keypoints: npt.NDArray[np.float64] | None
    label_fields: tuple[LabelField, ...] = ()

    def __len__(self) -> int:
        return len(self.labels)

    def __repr__(self) -> str:
        size = f"{self.size_hw[1]} x {self.size_hw[0]} pixels"
        return f"Record({self.name!r}, image_id {self.image_id}, {size}, {counted(len(self), 'instance')})"

    def class_names(self, class_map: ClassMap) -> list[str]:
        """Class names of the whole image; ``class_map`` is the table's. Empty for detection data."""
        prefixes = [f"{field.name}=" for field in self.label_fields] or [""]
        maps = [field.class_map for field in self.label_fields] or [class_map]
        return [
            prefix + names.name_of(int(index) + 1)
            for prefix, names, index in zip(prefixes, maps, self.class_index, strict=True)
            if index >= 0
        ]

    @property
    def name(self) -> str:
        """Name of the image in messages: file name, and the member or frame in that file."""
        if split_frame(self.path) is not None:
            return f"{self.path.parent.name}/{self.path.name}"
        inside = self.member or (f"frame {self.frame}" if self.frame >= 0 else "")
        return f"{self.path.name}:{inside}" if inside else self.path.name


@dataclass(frozen=True)
class AnnotationTable:
    """I images and N instances of one data set.

    Columns of images ([I]); an image's instances are the rows ``start`` to ``stop`` of the instance columns:
        image_id int64, record int64, media str (path, relative to ``root`` with forward slashes), member str,
        frame int32 (number in a video from 0; -1 none), height and width int32 as stored, orientation int8 (EXIF 1..8),
        stored_frame bool (the source's coordinates are those of the stored pixels, not of the upright image),
        group str ("" none), split str (the split in the source: "train", "val", "test" or ""),
        class_index int64 [I, T] (0..K-1 of its field, -1 none; T = 1 unless the set has several label fields),
        start int64, stop int64.
    Columns of instances ([N]), all in upright absolute pixels of the original:
        boxes_xywh float64 [N, 4], label int32 (1..K), area float64, iscrowd bool, ignore bool,
        difficult bool, annotation_id int64 (id in the source, for messages only), segmentation,
        keypoints float64 [N, P, 3] or None.
    With several label fields (T > 1) ``label_fields`` lists them, ``class_map`` is ``joined(label_fields)``, and there
    are no instances. ``lost`` counts the objects of the source that are not in the table, and names the images that
    are not, because they lost all their objects. ``text_ids`` are the ids of the source that are texts, by their
    numbers in ``image_id`` and ``class_map``.
    """

    class_map: ClassMap
    root: Path
    image_id: npt.NDArray[np.int64]
    record: npt.NDArray[np.int64]
    media: Strings
    member: Strings
    frame: npt.NDArray[np.int32]
    height: npt.NDArray[np.int32]
    width: npt.NDArray[np.int32]
    orientation: npt.NDArray[np.int8]
    stored_frame: npt.NDArray[np.bool_]
    group: Strings
    split: Strings
    class_index: npt.NDArray[np.int64]
    start: npt.NDArray[np.int64]
    stop: npt.NDArray[np.int64]
    boxes_xywh: npt.NDArray[np.float64]
    label: npt.NDArray[np.int32]
    area: npt.NDArray[np.float64]
    iscrowd: npt.NDArray[np.bool_]
    ignore: npt.NDArray[np.bool_]
    difficult: npt.NDArray[np.bool_]
    annotation_id: npt.NDArray[np.int64]
    segmentation: SegmentationColumn
    keypoints: npt.NDArray[np.float64] | None = None
    keypoint_schema: KeypointSchema | None = None
    label_fields: tuple[LabelField, ...] = ()
    source: str = ""
    text_ids: TextIds = field(default_factory=TextIds)
    notes: RepairLog = field(default_factory=RepairLog)
    lost: LostObjects = LostObjects()

    def __len__(self) -> int:
        return len(self.image_id)

    def __repr__(self) -> str:
        instances = counted(int(self.instances_per_image().sum()), "instance")
        kinds = (("masks", self.has_masks), ("keypoints", self.has_keypoints), ("boxes", self.has_boxes))
        kind = next((f" with {name}" for name, present in kinds if present), "")
        if self.has_class_index:
            labelled = int((self.class_index >= 0).any(axis=1).sum())
            instances, kind = f"{labelled} of them with a class", ""
        counts = Counter(self.split.tolist())
        splits = [f"{name or 'none'} {count}" for name, count in counts.items()] if any(counts) else []
        parts = [f"{counted(len(self), 'image')}, {instances}{kind}", with_classes(self.class_map.names)]
        parts += [f"splits: {listed(splits, 60)}"] * bool(splits) + [f"source: {tail(self.source)}"] * bool(self.source)
        return f"AnnotationTable({'; '.join(parts)})"

    def __getitem__(self, index: int) -> Record:
        """The record in row ``index`` of this table (negative: from the end); IndexError if out of range."""
        index = range(len(self))[index]
        rows = slice(int(self.start[index]), int(self.stop[index]))
        stored = (int(self.height[index]), int(self.width[index]))
        orientation = int(self.orientation[index])
        return Record(
            record=int(self.record[index]),
            image_id=int(self.image_id[index]),
            path=self.root / str(self.media[index]),
            member=str(self.member[index]),
            frame=int(self.frame[index]),
            stored_hw=stored,
            size_hw=upright_hw(stored, orientation),
            orientation=orientation,
            group=str(self.group[index]),
            split=str(self.split[index]),
            class_index=self.class_index[index],
            boxes_xywh=self.boxes_xywh[rows],
            labels=self.label[rows].astype(np.int64),
            areas=self.area[rows],
            iscrowd=self.iscrowd[rows],
            ignore=self.ignore[rows],
            difficult=self.difficult[rows],
            segmentations=[self.segmentation[i] for i in range(rows.start, rows.stop)],
            keypoints=None if self.keypoints is None else self.keypoints[rows],
            label_fields=self.label_fields,
        )

    def __iter__(self) -> Iterator[Record]:
        return (self[index] for index in range(len(self)))

    def subset(self, rows: Sequence[int] | npt.NDArray[np.integer]) -> AnnotationTable:
        """The images in ``rows`` of this table, in that order. Instances are shared, not copied."""
        rows = np.asarray(rows, dtype=np.int64)
        return replace(self, **{name: getattr(self, name)[rows] for name in IMAGE_COLUMNS})

    def files(self) -> list[Path]:
        """The paths of the images, in the order of the rows, without repetitions; see :meth:`has_path`."""
        named = (row for row in range(len(self)) if self.has_path(row))
        return list(dict.fromkeys(self.root / str(self.media[row]) for row in named))

    def size_hw(self, row: int) -> tuple[int, int]:
        """Height and width of the upright image in a row."""
        return upright_hw((int(self.height[row]), int(self.width[row])), int(self.orientation[row]))

    def has_path(self, row: int) -> bool:
        """Whether the image in a row has a path of its own that can be opened: a file, or a frame of a video as
        ``clip.mp4/frame_000123.png``; not if it is of a dataset object, or named by ``member``."""
        name = str(self.media[row])
        is_frame = int(self.frame[row]) >= 0
        return bool(name) and not str(self.member[row]) and not (is_frame and split_frame(name) is None)

    def instance_rows(self) -> npt.NDArray[np.int64]:
        """int64: rows of the instance columns that belong to this table's images, in image order."""
        counts = self.stop - self.start
        offsets = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
        return (np.repeat(self.start, counts) + offsets).astype(np.int64)

    def instances_per_image(self) -> npt.NDArray[np.int64]:
        """int64 [I]: number of instances, crowds included."""
        return self.stop - self.start

    def trained_rows(self) -> npt.NDArray[np.int64]:
        """int64: rows of the training instances, in image order: all except crowds and ignored ones."""
        rows = self.instance_rows()
        return rows[~(self.iscrowd[rows] | self.ignore[rows])]

    @property
    def has_masks(self) -> bool:
        """Whether every training instance has a segmentation, and there is at least one."""
        return self.has_boxes and bool(self.segmentation.present()[self.trained_rows()].all())

    @property
    def has_keypoints(self) -> bool:
        """Whether any training instance has a labelled keypoint."""
        return self.keypoints is not None and bool((self.keypoints[self.trained_rows(), :, 2] > 0).any())

    @property
    def has_boxes(self) -> bool:
        """Whether there is any training instance."""
        return len(self.trained_rows()) > 0

    @property
    def has_class_index(self) -> bool:
        """Whether images have class labels (classification)."""
        return len(self) > 0 and bool((self.class_index >= 0).any())

    @property
    def fields(self) -> tuple[LabelField, ...]:
        """The T fields of ``class_index``; a single field has an empty name."""
        return self.label_fields or (LabelField("", self.class_map),)

    def image_labels(self) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        """All class labels of images: int64 rows of this table, and int64 labels 1..K of ``class_map``."""
        first = np.cumsum([1, *(len(field) for field in self.fields)])
        rows, columns = np.nonzero(self.class_index >= 0)
        return rows, self.class_index[rows, columns] + first[columns]

    from_dataset = moved_function("detseg.annotations.from_dataset", "table_from_dataset")


IMAGE_COLUMNS = (
    "image_id", "record", "media", "member", "frame", "height", "width", "orientation", "stored_frame",
    "group", "split", "class_index", "start", "stop",
)  # fmt: skip
INSTANCE_COLUMNS = ("boxes_xywh", "label", "area", "iscrowd", "ignore", "difficult", "annotation_id")
