"""Serialize predictions for another process: msgpack, which cannot contain code."""

from __future__ import annotations

from collections.abc import Iterable

import msgspec
import numpy as np

from detseg.structures import RLE, Prediction


class _Image(msgspec.Struct, array_like=True):
    image_id: int
    size_hw: tuple[int, int]
    boxes: bytes
    labels: bytes
    scores: bytes
    rles: list[tuple[int, int, bytes]] | None
    keypoints: tuple[int, bytes] | None


def pack_predictions(predictions: Iterable[tuple[int, Prediction]]) -> bytes:
    """Serialize pairs (image id, prediction)."""
    return msgspec.msgpack.encode([_packed(image_id, prediction) for image_id, prediction in predictions])


def unpack_predictions(content: bytes) -> list[tuple[int, Prediction]]:
    """Deserialize the bytes of :func:`pack_predictions`; the predictions are bit-identical."""
    return [(image.image_id, _unpacked(image)) for image in msgspec.msgpack.decode(content, type=list[_Image])]


def _packed(image_id: int, prediction: Prediction) -> _Image:
    keypoints = prediction.keypoints
    return _Image(
        image_id,
        prediction.size_hw,
        np.ascontiguousarray(prediction.boxes, np.float32).tobytes(),
        np.ascontiguousarray(prediction.labels, np.int64).tobytes(),
        np.ascontiguousarray(prediction.scores, np.float32).tobytes(),
        None if prediction.rles is None else [(*rle["size"], _bytes(rle["counts"])) for rle in prediction.rles],
        None if keypoints is None else (keypoints.shape[1], np.ascontiguousarray(keypoints, np.float32).tobytes()),
    )


def _unpacked(image: _Image) -> Prediction:
    rles: list[RLE] | None = None
    if image.rles is not None:
        rles = [{"size": [height, width], "counts": counts} for height, width, counts in image.rles]
    keypoints = None
    if image.keypoints is not None:
        points, content = image.keypoints
        keypoints = np.frombuffer(content, np.float32).reshape(-1, points, 3)
    return Prediction(
        image.size_hw,
        np.frombuffer(image.boxes, np.float32).reshape(-1, 4),
        np.frombuffer(image.labels, np.int64),
        np.frombuffer(image.scores, np.float32),
        rles,
        keypoints,
    )


def _bytes(counts: str | bytes) -> bytes:
    return counts.encode("ascii") if isinstance(counts, str) else counts
