"""The annotation table: everything that a data set says, in columns; no pixels, no torch."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from detseg.annotations.label_fields import same_fields
from detseg.annotations.repair_log import Notes
from detseg.annotations.segmentation import Segmentation, SegmentationColumn
from detseg.classes import ClassMap, LabelField
from detseg.errors import DataError

Strings = np.ndarray[Any, np.dtypes.StringDType]


@dataclass(frozen=True)
class KeypointSchema:
    """The P keypoints of a data set.

    Attributes:
        names: P names.
        swaps: index pairs (left, right) that change places in a mirror.
        sigmas: P OKS falloffs, COCO's ``k / 2``; pycocotools knows only those of its 17 points.
        skeleton: index pairs to draw lines between.
    """

    names: tuple[str, ...]
    swaps: tuple[tuple[int, int], ...] = ()
    sigmas: tuple[float, ...] = ()
    skeleton: tuple[tuple[int, int], ...] = ()


@dataclass(frozen=True)
class Record:
    """One annotated image, as a small view of a table. All coordinates are upright pixels.

    Attributes:
        record: row in the full table that all subsets come from; randomness depends on it.
        image_id: the source's own id of the image.
        path: file to open (of the archive or video if ``member`` or ``frame`` say so).
        stored_hw: height and width as stored in the file; ``size_hw`` is upright.
        orientation: EXIF orientation 1..8 of the stored pixels.
        class_index: int64 [T], one for each label field; -1 where there is none.
        boxes_xywh: float64 [N, 4].
        labels: int64 [N], 1..K.
        areas: float64 [N], square pixels of the upright original.
        iscrowd, ignore: bool [N]. Neither is trained on; both are left out of the count of misses in evaluation.
        difficult: bool [N]. Trained on, but left out of the count of misses in evaluation, as Pascal VOC has it.
        segmentations: N of polygons, RLE or None.
        keypoints: float64 [N, P, 3] x, y, visibility 0..2; None without a keypoint schema.
        label_fields: the T fields of ``class_index`` where there are several; else empty.
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

    def class_names(self, class_map: ClassMap) -> list[str]:
        """The classes of the whole image, as ``class_map`` (the table's) calls them; none in a detection set."""
        prefixes = [f"{field.name}=" for field in self.label_fields] or [""]
        maps = [field.class_map for field in self.label_fields] or [class_map]
        return [
            prefix + names.name_of(int(index) + 1)
            for prefix, names, index in zip(prefixes, maps, self.class_index, strict=True)
            if index >= 0
        ]

    @property
    def name(self) -> str:
        """What a message calls this image: file name, and the member or frame inside it."""
        inside = self.member or (f"frame {self.frame}" if self.frame >= 0 else "")
        return f"{self.path.name}:{inside}" if inside else self.path.name


@dataclass(frozen=True)
class AnnotationTable:
    """I images and N instances of one data set.

    Columns of images ([I]); an image's instances are the rows ``start`` to ``stop`` of the instance columns:
        image_id int64, record int64, media str (path, relative to ``root`` with forward slashes), member str,
        frame int32 (-1 none), height and width int32 as stored, orientation int8 (EXIF 1..8),
        stored_frame bool (the source's own coordinates are those of the stored pixels, not of the upright picture),
        group str ("" none), split str (the source's own: "train", "val", "test" or ""),
        class_index int64 [I, T] (0..K-1 of its field, -1 none; T = 1 unless the set has several label fields),
        start int64, stop int64.
    Columns of instances ([N]), all in upright absolute pixels of the original:
        boxes_xywh float64 [N, 4], label int32 (1..K), area float64, iscrowd bool, ignore bool,
        difficult bool, annotation_id int64 (the source's own, for messages only), segmentation,
        keypoints float64 [N, P, 3] or None.
    With several label fields (T > 1) ``label_fields`` has them, ``class_map`` is ``joined(label_fields)``, and there
    are no instances.
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
    notes: Notes = field(default_factory=Notes)

    def __len__(self) -> int:
        return len(self.image_id)

    def __getitem__(self, index: int) -> Record:
        """The record in row ``index`` of this table (negative counts from the end); IndexError outside."""
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
            size_hw=stored if orientation < 5 else (stored[1], stored[0]),
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
        return replace(self, **{name: getattr(self, name)[rows] for name in _IMAGE_COLUMNS})

    def instance_rows(self) -> npt.NDArray[np.int64]:
        """int64: rows of the instance columns that belong to this table's images, in image order."""
        counts = self.stop - self.start
        offsets = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
        return (np.repeat(self.start, counts) + offsets).astype(np.int64)

    def instances_per_image(self) -> npt.NDArray[np.int64]:
        """int64 [I]: number of instances, crowds included."""
        return self.stop - self.start

    def trained_rows(self) -> npt.NDArray[np.int64]:
        """int64: rows of the instances that are trained on, in image order: all but crowds and ignored ones."""
        rows = self.instance_rows()
        return rows[~(self.iscrowd[rows] | self.ignore[rows])]

    @property
    def has_masks(self) -> bool:
        """Whether every instance that is trained on has a segmentation, and there is at least one."""
        return self.has_boxes and bool(self.segmentation.present()[self.trained_rows()].all())

    @property
    def has_keypoints(self) -> bool:
        """Whether an instance that is trained on has a labelled keypoint."""
        return self.keypoints is not None and bool((self.keypoints[self.trained_rows(), :, 2] > 0).any())

    @property
    def has_boxes(self) -> bool:
        """Whether there is an instance that is trained on."""
        return len(self.trained_rows()) > 0

    @property
    def has_class_index(self) -> bool:
        """Whether images carry class labels of their own (classification)."""
        return len(self) > 0 and bool((self.class_index >= 0).any())

    @property
    def fields(self) -> tuple[LabelField, ...]:
        """The T fields of ``class_index``; the one that is all has no name."""
        return self.label_fields or (LabelField("", self.class_map),)

    def image_labels(self) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        """Every class label that an image carries: int64 rows of this table, and labels in 1..K of ``class_map``."""
        first = np.cumsum([1, *(len(field) for field in self.fields)])
        rows, columns = np.nonzero(self.class_index >= 0)
        return rows, self.class_index[rows, columns] + first[columns]

    @classmethod
    def from_dataset(cls, dataset: Any, class_map: ClassMap | None = None) -> AnnotationTable:
        """The table of anybody's untransformed ``(image, target)`` dataset; see ``annotations/foreign.py``."""
        from detseg.annotations.from_dataset import read_dataset

        return read_dataset(dataset, class_map)


_IMAGE_COLUMNS = (
    "image_id", "record", "media", "member", "frame", "height", "width", "orientation", "stored_frame",
    "group", "split", "class_index", "start", "stop",
)  # fmt: skip
_INSTANCE_COLUMNS = ("boxes_xywh", "label", "area", "iscrowd", "ignore", "difficult", "annotation_id")


def concatenate(tables: Sequence[AnnotationTable], *, by_name: bool = False) -> AnnotationTable:
    """The images of several tables, one after the other; rows of the result are its new ``record``.

    Classes that only some tables have are added, by ascending category id; label fields and their classes by name.
    Image ids that occur in more than one table are renumbered 1..I for all images, with a note.

    Args:
        by_name: for formats without category ids: classes are one if their names are, and get the ids 1..K in order
            of their names.

    Raises:
        DataError: a class has two category ids or an id two classes, keypoint schemas differ, some tables have label
            fields and others none, or there is no table.
    """
    if not tables:
        raise DataError("no tables to join; give at least one")
    notes = Notes()
    tables = same_fields(tables, notes)
    if by_name and not tables[0].label_fields:
        names = sorted({name for table in tables for name in table.class_map.names})
        tables = [replace(table, class_map=_numbered(table.class_map, names)) for table in tables]
    tables = _same_classes(tables, notes)
    first = tables[0]
    for table in tables[1:]:
        if table.keypoint_schema != first.keypoint_schema:
            raise DataError(
                f"{table.source} and {first.source} have different keypoints; give both files the same keypoint names "
                "and skeleton"
            )
    roots = {os.path.abspath(table.root) for table in tables}  # noqa: PTH100  (resolve would follow links)
    root = first.root if len(roots) == 1 else Path(os.path.commonpath(roots))
    columns: dict[str, Any] = {
        name: np.concatenate([getattr(table, name) for table in tables])
        for name in (*_IMAGE_COLUMNS, *_INSTANCE_COLUMNS)
    }
    if len(roots) > 1:
        media = [
            (table.root / str(name)).absolute().relative_to(root).as_posix() for table in tables for name in table.media
        ]
        columns["media"] = np.array(media, dtype=np.dtypes.StringDType())
    shift = np.cumsum([0, *(len(table.label) for table in tables)])
    columns["start"] = np.concatenate([table.start + offset for table, offset in zip(tables, shift, strict=False)])
    columns["stop"] = np.concatenate([table.stop + offset for table, offset in zip(tables, shift, strict=False)])
    columns["record"] = np.arange(len(columns["image_id"]))
    for table in tables:
        notes.merge(table.notes)
    if len(np.unique(columns["image_id"])) < len(columns["image_id"]):
        columns["image_id"] = np.arange(1, len(columns["image_id"]) + 1)
        notes.add("image ids renumbered 1..n because files share ids", ", ".join(table.source for table in tables))
    return replace(
        first,
        **columns,
        root=root,
        segmentation=SegmentationColumn.concatenate([table.segmentation for table in tables]),
        keypoints=None if first.keypoints is None else np.concatenate([table.keypoints for table in tables]),
        source=", ".join(table.source for table in tables),
        notes=notes,
    )


def _numbered(class_map: ClassMap, names: list[str]) -> ClassMap:
    """``class_map`` with the position in ``names``, from 1, as category id."""
    return ClassMap(class_map.names, tuple(names.index(name) + 1 for name in class_map.names))


def _same_classes(tables: Sequence[AnnotationTable], notes: Notes) -> list[AnnotationTable]:
    """The tables with labels of one class map: that of the first if all agree, else all classes by category id."""
    if all(table.class_map == tables[0].class_map for table in tables):
        return list(tables)
    name_of: dict[int, str] = {}
    id_of: dict[str, int] = {}
    for table in tables:
        for number, name in zip(table.class_map.category_ids, table.class_map.names, strict=True):
            if name_of.setdefault(number, name) != name or id_of.setdefault(name, number) != number:
                raise DataError(
                    f"{table.source} has the class {name!r} as category {number}, another file of the same data has "
                    f"{name_of[number]!r} as category {number}"
                    + (f" and {name!r} as category {id_of[name]}" if id_of.get(name, number) != number else "")
                    + "; give every class the same id in all files"
                )
    ids = tuple(sorted(name_of))
    class_map = ClassMap(tuple(name_of[number] for number in ids), ids)
    label_of = class_map.labels_by_category_id()
    renumbered = []
    for table in tables:
        lacking = [name for name in class_map.names if name not in table.class_map.names]
        if lacking:
            notes.add("class list completed from the other files", f"{table.source} lacks {', '.join(lacking)}")
        to_label = np.array([0, *(label_of[number] for number in table.class_map.category_ids)], np.int32)
        index = np.where(table.class_index >= 0, to_label[table.class_index + 1].astype(np.int64) - 1, -1)
        renumbered.append(replace(table, class_map=class_map, label=to_label[table.label], class_index=index))
    return renumbered
