"""Hold the ground truth of an evaluation, and convert it to a COCO dictionary with consecutive ids."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np

from detseg.annotations.repair_log import RepairLog
from detseg.annotations.segmentation import Segmentation
from detseg.annotations.table import AnnotationTable
from detseg.annotations.text_ids import TextIds
from detseg.class_names import Rename, new_names
from detseg.errors import DataError
from detseg.keypoints import COCO_SIGMAS
from detseg.short_text import counted, tail, with_classes

Size = tuple[int, int]


@dataclass(frozen=True)
class GroundTruthInstance:
    """One annotated object.

    Attributes:
        image_id: id of its image in the data set.
        label: 1..K.
        box: x, y, width, height in pixels.
        area: square pixels; determines the size range of the object.
        iscrowd: the object is never counted as missed, and detections inside it are not counted as errors. ``ignore``
            and ``difficult`` of a table are treated the same way: COCO's evaluation has no other ignored regions.
        segmentation: as in COCO's JSON (flat polygon rings, or RLE with counts as text); None if there is none.
        keypoints: x, y, visibility, x, y, ...; None if there are none.
        num_keypoints: number of labelled keypoints; an object with 0 is ignored in keypoint evaluation, as in COCO.
    """

    image_id: int
    label: int
    box: tuple[float, float, float, float]
    area: float
    iscrowd: bool = False
    segmentation: Any = None
    keypoints: tuple[float, ...] | None = None
    num_keypoints: int = 0


@dataclass(frozen=True)
class GroundTruth:
    """All images and objects of an evaluation.

    :meth:`dataset` replaces the ids of the source: annotations are numbered 1..N (with id 0 or repeated ids pycocotools
    counts detected objects as missed), images and categories by the rank of their ids, which keeps COCO's tie order.

    Attributes:
        source: name in messages.
        sizes: image id -> (height, width); None if the source does not contain the size.
        instances: the objects, in the order of the source.
        class_names: K different names, by label.
        category_ids: K category ids of the source, by label.
        sigmas: OKS sigmas of the P keypoints; empty without keypoints.
        stored: image id -> (stored size, EXIF orientation) of images whose source uses the frame of the stored pixels;
            all other values here are for upright images.
        text_ids: ids of the source that are texts, by their numbers here.
        notes: log of skipped annotations.
        left_out: ids of images that lost all their objects; they are not in ``sizes``, and not evaluated.
        boxes_changed: whether a box differs from that in the source.
    """

    source: str
    sizes: dict[int, Size | None]
    instances: tuple[GroundTruthInstance, ...]
    class_names: tuple[str, ...]
    category_ids: tuple[int, ...]
    sigmas: tuple[float, ...] = ()
    stored: dict[int, tuple[Size, int]] = field(default_factory=dict)
    text_ids: TextIds = field(default_factory=TextIds)
    notes: RepairLog = field(default_factory=RepairLog)
    left_out: frozenset[int] = frozenset()
    boxes_changed: bool = False

    def __repr__(self) -> str:
        counts = f"{counted(len(self.sizes), 'image')}, {counted(len(self.instances), 'instance')}"
        return f"GroundTruth({counts}; {with_classes(self.class_names)}; source: {tail(self.source)})"

    @classmethod
    def from_table(cls, table: AnnotationTable) -> GroundTruth:
        """Create the ground truth of a table (never of a dataset that transforms its samples), in upright pixels.

        In mask evaluation, an ignored or crowd instance without a segmentation is replaced by its filled box.
        """
        schema = table.keypoint_schema
        instances = []
        for record in table:
            for i in range(len(record)):
                ignored = bool(record.iscrowd[i] or record.ignore[i] or record.difficult[i])
                box = tuple(record.boxes_xywh[i].tolist())
                segmentation = to_json(record.segmentations[i])
                points = None if record.keypoints is None else record.keypoints[i]
                instances.append(
                    GroundTruthInstance(
                        record.image_id,
                        int(record.labels[i]),
                        box,
                        float(record.areas[i]),
                        ignored,
                        box_polygon(box) if segmentation is None and ignored else segmentation,
                        None if points is None else tuple(points.ravel().tolist()),
                        0 if points is None else int((points[:, 2] > 0).sum()),
                    )
                )
        rows = np.flatnonzero(table.stored_frame & (table.orientation != 1))
        return cls(
            table.source,
            {record.image_id: record.size_hw for record in table},
            tuple(instances),
            table.class_map.names,
            table.class_map.category_ids,
            () if schema is None else oks_sigmas(len(schema.names), schema.sigmas),
            {table[row].image_id: (table[row].stored_hw, table[row].orientation) for row in rows.tolist()},
            table.text_ids,
        )

    def renamed(self, rename: Rename) -> tuple[GroundTruth, dict[int, int]]:
        """The ground truth with other names of classes, and category id -> id of the class that it is merged into.

        Raises:
            DataError: an old name that is not a class, or a text that is not OLD=NEW.
        """
        mapping = new_names(rename, self.class_names, self.source)
        names = [mapping.get(name, name) for name in self.class_names]
        unique = list(dict.fromkeys(names))
        first = [names.index(name) for name in unique]
        instances = [replace(item, label=unique.index(names[item.label - 1]) + 1) for item in self.instances]
        ids = tuple(self.category_ids[index] for index in first)
        merged = {old: ids[unique.index(name)] for old, name in zip(self.category_ids, names, strict=True)}
        return replace(self, instances=tuple(instances), class_names=tuple(unique), category_ids=ids), merged

    @cached_property
    def number_of_image(self) -> dict[int, int]:
        """Image id of the source -> id in :meth:`dataset`."""
        return {image_id: number for number, image_id in enumerate(sorted(self.sizes), 1)}

    @cached_property
    def number_of_label(self) -> dict[int, int]:
        """Label 1..K -> category id in :meth:`dataset`."""
        ranked = sorted(range(len(self.category_ids)), key=lambda index: self.category_ids[index])
        return {index + 1: number for number, index in enumerate(ranked, 1)}

    @cached_property
    def label_of_category(self) -> dict[int, int]:
        """Category id of the source -> label 1..K."""
        return {category_id: label for label, category_id in enumerate(self.category_ids, 1)}

    @cached_property
    def most_of_a_class(self) -> int:
        """The largest number of objects of one class in one image, without crowds; COCO's limit works per class."""
        return max(self.per_class_and_image().values(), default=0)

    def per_class_and_image(self) -> Counter[tuple[int, int]]:
        """(image id of the source, label) -> number of objects, without crowds."""
        return Counter((i.image_id, i.label) for i in self.instances if not i.iscrowd)

    def counts(self) -> dict[str, int]:
        """Number of objects by class name, without crowds."""
        by_label = Counter(instance.label for instance in self.instances if not instance.iscrowd)
        return {name: by_label[label] for label, name in enumerate(self.class_names, 1)}

    def dataset(self, iou_type: str) -> dict[str, Any]:
        """The ground truth as a COCO dictionary with consecutive ids and the fields that ``iou_type`` needs.

        Raises:
            DataError: an object has no segmentation (segm), or keypoints and OKS sigmas do not match (keypoints).
        """
        annotations = []
        for number, instance in enumerate(self.instances, 1):
            value: dict[str, Any] = {
                "id": number,
                "image_id": self.number_of_image[instance.image_id],
                "category_id": self.number_of_label[instance.label],
                "bbox": list(instance.box),
                "area": instance.area,
                "iscrowd": int(instance.iscrowd),
            }
            if iou_type == "segm":
                if instance.segmentation is None:
                    raise DataError(
                        f"{self.source}: object {number} (image {instance.image_id}) has no segmentation; evaluate "
                        "boxes instead (bbox), or add a segmentation"
                    )
                value["segmentation"] = instance.segmentation
            if iou_type == "keypoints":
                value["keypoints"] = list(self._keypoints(instance, number))
                value["num_keypoints"] = instance.num_keypoints
            annotations.append(value)
        return {"images": self.images(), "annotations": annotations, "categories": self.categories()}

    def _keypoints(self, instance: GroundTruthInstance, number: int) -> Sequence[float]:
        if instance.keypoints is None:
            return [0.0] * (3 * len(self.sigmas))
        if not self.sigmas or len(instance.keypoints) != 3 * len(self.sigmas):
            raise DataError(
                f"{self.source}: object {number} (image {instance.image_id}) has {len(instance.keypoints)} keypoint "
                f"numbers, and there are {len(self.sigmas)} OKS sigmas; each keypoint needs three numbers and a sigma "
                f"(COCO defines sigmas only for its own {len(COCO_SIGMAS)} keypoints): for other keypoints add "
                '"sigmas" next to "keypoints" in the categories of the file, 0.05 each (the default of training runs), '
                "or your own values"
            )
        return instance.keypoints

    def images(self) -> list[dict[str, Any]]:
        """COCO's images with consecutive ids; the size is 0 if the source does not contain it."""
        sizes = ((number, self.sizes[image_id] or (0, 0)) for image_id, number in self.number_of_image.items())
        return [{"id": number, "height": height, "width": width} for number, (height, width) in sizes]

    def categories(self) -> list[dict[str, Any]]:
        """COCO's categories with consecutive ids."""
        numbers = sorted((number, self.class_names[label - 1]) for label, number in self.number_of_label.items())
        return [{"id": number, "name": name} for number, name in numbers]


def to_json(segmentation: Segmentation) -> Any:
    """The segmentation as in COCO's JSON: rings as flat lists of numbers, or RLE with text counts; None stays None."""
    if isinstance(segmentation, dict):
        return {"size": list(segmentation["size"]), "counts": segmentation["counts"].decode("ascii")}
    return None if segmentation is None else [ring.ravel().tolist() for ring in segmentation]


def box_polygon(box: Sequence[float]) -> list[list[float]]:
    """The rectangle that pycocotools uses for a box without a segmentation, in its order of corners."""
    x, y, w, h = box
    return [[x, y, x, y + h, x + w, y + h, x + w, y]]


def oks_sigmas(points: int, sigmas: Sequence[float] = ()) -> tuple[float, ...]:
    """The OKS sigma of each keypoint: ``sigmas``, else COCO's if there are 17 points, else empty."""
    return tuple(sigmas) or (COCO_SIGMAS if points == len(COCO_SIGMAS) else ())
