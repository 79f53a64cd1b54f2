"""The ground truth that predictions are scored against, in COCO's terms but with numbers of our own."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np

from detseg.annotations.repair_log import RepairLog
from detseg.annotations.segmentation import Segmentation
from detseg.annotations.table import AnnotationTable
from detseg.errors import DataError
from detseg.keypoints import COCO_SIGMAS

Size = tuple[int, int]


@dataclass(frozen=True)
class GroundTruthInstance:
    """One annotated object.

    Attributes:
        image_id: the data set's own id of its image.
        label: 1..K.
        box: x, y, width, height in pixels.
        area: square pixels; decides which size range the object belongs to.
        iscrowd: never a miss, and any number of detections inside it are no mistakes. ``ignore`` and ``difficult`` of
            a table count the same way: COCO's own evaluation knows no other kind of ignored region.
        outline: "segmentation" as COCO's JSON has it (flat rings, or RLE with text counts); None if there is none.
        keypoints: x, y, visibility, x, y, ...; None if there are none.
        num_keypoints: number of labelled ones; an object with 0 is ignored in keypoint evaluation, as in COCO.
    """

    image_id: int
    label: int
    box: tuple[float, float, float, float]
    area: float
    iscrowd: bool = False
    outline: Any = None
    keypoints: tuple[float, ...] | None = None
    num_keypoints: int = 0


@dataclass(frozen=True)
class GroundTruth:
    """All images and objects that predictions are scored against.

    Whatever ids the source uses, :meth:`dataset` numbers annotations 1..N (id 0 or repeated ids make pycocotools count
    found objects as missed), and images and categories by the rank of their own ids, which keeps COCO's order of ties.

    Attributes:
        source: what messages call it.
        sizes: own image id -> (height, width); None where the source does not say.
        instances: the objects, in the source's order.
        class_names: K different names, by label.
        category_ids: K own ids, by label.
        sigmas: OKS falloffs of the P keypoints; empty where there are none.
        stored: own image id -> (stored size, EXIF orientation) of images whose source uses the frame of the stored
            pixels; everything else here is upright.
        notes: what was left out.
    """

    source: str
    sizes: dict[int, Size | None]
    instances: tuple[GroundTruthInstance, ...]
    class_names: tuple[str, ...]
    category_ids: tuple[int, ...]
    sigmas: tuple[float, ...] = ()
    stored: dict[int, tuple[Size, int]] = field(default_factory=dict)
    notes: RepairLog = field(default_factory=RepairLog)

    @classmethod
    def from_table(cls, table: AnnotationTable) -> GroundTruth:
        """The ground truth of a table (never of a dataset that transforms its samples), in upright pixels.

        An ignored or crowd instance without a segmentation stands for its box in mask evaluation.
        """
        schema = table.keypoint_schema
        instances = []
        for record in table:
            for i in range(len(record)):
                ignored = bool(record.iscrowd[i] or record.ignore[i] or record.difficult[i])
                box = tuple(record.boxes_xywh[i].tolist())
                outline = to_json(record.segmentations[i])
                points = None if record.keypoints is None else record.keypoints[i]
                instances.append(
                    GroundTruthInstance(
                        record.image_id,
                        int(record.labels[i]),
                        box,
                        float(record.areas[i]),
                        ignored,
                        box_outline(box) if outline is None and ignored else outline,
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
        )

    @cached_property
    def number_of_image(self) -> dict[int, int]:
        """Own image id -> its number in :meth:`dataset`."""
        return {image_id: number for number, image_id in enumerate(sorted(self.sizes), 1)}

    @cached_property
    def number_of_label(self) -> dict[int, int]:
        """Label 1..K -> its category number in :meth:`dataset`."""
        ranked = sorted(range(len(self.category_ids)), key=lambda index: self.category_ids[index])
        return {index + 1: number for number, index in enumerate(ranked, 1)}

    @cached_property
    def label_of_category(self) -> dict[int, int]:
        """Own category id -> label 1..K."""
        return {category_id: label for label, category_id in enumerate(self.category_ids, 1)}

    @cached_property
    def most_of_a_class(self) -> int:
        """The largest number of objects of one class in one image, without crowds; COCO's limit works per class."""
        return max(self.per_class_and_image().values(), default=0)

    def per_class_and_image(self) -> Counter[tuple[int, int]]:
        """(own image id, label) -> number of objects, without crowds."""
        return Counter((i.image_id, i.label) for i in self.instances if not i.iscrowd)

    def counts(self) -> dict[str, int]:
        """Number of objects by class name, without crowds."""
        found = Counter(instance.label for instance in self.instances if not instance.iscrowd)
        return {name: found[label] for label, name in enumerate(self.class_names, 1)}

    def dataset(self, iou_type: str) -> dict[str, Any]:
        """The ground truth as a COCO dictionary in our numbers, with what evaluation of ``iou_type`` needs.

        Raises:
            DataError: an object has no outline (segm), or keypoints and OKS falloffs do not match (keypoints).
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
                if instance.outline is None:
                    raise DataError(
                        f"{self.source}: object {number} (image {instance.image_id}) has no segmentation; evaluate "
                        "boxes instead (bbox), or give it an outline"
                    )
                value["segmentation"] = instance.outline
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
                f"numbers and {len(self.sigmas)} OKS falloffs (sigmas) are known; three numbers and one falloff are "
                f"needed for each keypoint (COCO defines falloffs only for its own {len(COCO_SIGMAS)}): for other sets "
                'write "sigmas" beside "keypoints" in the categories of the file, 0.05 for each as runs do, or your own'
            )
        return instance.keypoints

    def images(self) -> list[dict[str, Any]]:
        """COCO's images in our numbers; a size that the source does not give is 0."""
        sizes = ((number, self.sizes[image_id] or (0, 0)) for image_id, number in self.number_of_image.items())
        return [{"id": number, "height": height, "width": width} for number, (height, width) in sizes]

    def categories(self) -> list[dict[str, Any]]:
        """COCO's categories in our numbers."""
        numbers = sorted((number, self.class_names[label - 1]) for label, number in self.number_of_label.items())
        return [{"id": number, "name": name} for number, name in numbers]


def to_json(segmentation: Segmentation) -> Any:
    """Rings as flat lists of numbers, RLE with text counts: how COCO's JSON writes outlines. None stays None."""
    if isinstance(segmentation, dict):
        return {"size": list(segmentation["size"]), "counts": segmentation["counts"].decode("ascii")}
    return None if segmentation is None else [ring.ravel().tolist() for ring in segmentation]


def box_outline(box: Sequence[float]) -> list[list[float]]:
    """The rectangle that pycocotools takes for a box without an outline, in its order of corners."""
    x, y, w, h = box
    return [[x, y, x, y + h, x + w, y + h, x + w, y]]


def oks_sigmas(points: int, given: Sequence[float] = ()) -> tuple[float, ...]:
    """The OKS falloff of each keypoint: those given, else COCO's if there are as many points; else empty."""
    return tuple(given) or (COCO_SIGMAS if points == len(COCO_SIGMAS) else ())
