"""Evaluate the predictions of tiles: merge those of an image when all are there, then evaluate the whole image."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import msgspec

from detseg.errors import DataError
from detseg.metrics import CocoEvaluator
from detseg.metrics.outputs import Output, as_prediction, to_numpy
from detseg.metrics.serialization import pack_predictions, unpack_predictions
from detseg.preprocess import Geometry
from detseg.structures import Prediction
from detseg.tile_merge import merge_views

Views = Callable[[int], Sequence[Geometry]]


class TiledEvaluator(CocoEvaluator):
    """As :class:`~detseg.metrics.CocoEvaluator`, for the outputs of views of images; the metrics are of whole images.

    A target also has ``tile``, the number of the view. The tiles of an image can come in any order and from several
    processes; in memory are only those of images that are not complete.

    Args:
        ground_truth, iou_types, max_dets: as in CocoEvaluator.
        views: image id -> its views.
    """

    def __init__(self, ground_truth: Any, *, views: Views, iou_types: Sequence[str], max_dets: int | None) -> None:
        self._views = views
        super().__init__(ground_truth, iou_types=iou_types, max_dets=max_dets)

    def reset(self) -> None:
        super().reset()
        self._tiles: dict[int, dict[int, Prediction]] = {}
        self._tiles_seen = 0

    @property
    def images_seen(self) -> int:
        """Number of different tiles that were added: the samples of an evaluation."""
        return self._tiles_seen

    def update(self, targets: Sequence[Mapping[str, Any]], outputs: Sequence[Output]) -> None:
        if len(targets) != len(outputs):
            raise DataError(f"{len(targets)} targets but {len(outputs)} outputs; pass one output per tile")
        for target, output in zip(targets, outputs, strict=True):
            image_id, tile = (int(to_numpy(target[name]).reshape(-1)[0]) for name in ("image_id", "tile"))
            geometry = self._views(image_id)[tile]
            prediction = as_prediction(
                output,
                self.ground_truth.sizes[image_id],
                geometry=lambda geometry=geometry: geometry,  # type: ignore[misc]
                num_labels=len(self.ground_truth.class_names),
                where=f"image {image_id}, tile {tile + 1}",
                masks="segm" in self.iou_types,
            )
            self._add(image_id, tile, prediction)

    def to_bytes(self) -> bytes:
        tiles = [
            (image_id, tile, pack_predictions([(image_id, prediction)]))
            for image_id, parts in self._tiles.items()
            for tile, prediction in parts.items()
        ]
        return msgspec.msgpack.encode([super().to_bytes(), self._tiles_seen, tiles])

    def add_bytes(self, content: bytes) -> None:
        whole, seen, tiles = msgspec.msgpack.decode(content, type=tuple[bytes, int, list[tuple[int, int, bytes]]])
        super().add_bytes(whole)
        self._tiles_seen += seen - len(tiles)
        for image_id, tile, packed in tiles:
            self._add(image_id, tile, unpack_predictions(packed)[0][1])
        super().add_bytes(pack_predictions([]))  # restores the order of the images

    def _add(self, image_id: int, tile: int, prediction: Prediction) -> None:
        """Keep the prediction of a tile, and merge those of the image when it is the last one."""
        tiles = self._tiles.setdefault(image_id, {})
        if image_id in self._predictions or tile in tiles:
            self.repeats += 1
            return
        tiles[tile] = prediction
        self._tiles_seen += 1
        views = self._views(image_id)
        if len(tiles) < len(views):
            return
        del self._tiles[image_id]
        merged = merge_views(views, [tiles[number] for number in range(len(views))])
        super().update([{"image_id": image_id}], [merged])
