"""Serve a model without a network: ``python stub_server.py "{'delay': 0.05, 'queue_size': 4}"``."""

from __future__ import annotations

import ast
import sys
import time
from collections.abc import Sequence
from typing import Any

import numpy as np

from detseg.classes import ClassMap, LabelField
from detseg.images import EncodedImage
from detseg.keypoints import KeypointSchema
from detseg.masks import mask_to_rle
from detseg.structures import Prediction


class StubModel:
    """Predicts two boxes with masks; one side of the first box is the width of the image.

    Attributes:
        delay: seconds that an image takes.
        batches: sizes of the batches, in order.
        fail: exception to raise, for tests of failures.
    """

    def __init__(self, delay: float = 0.0) -> None:
        self.class_map = ClassMap(("bolt", "nut"))
        self.label_fields: tuple[LabelField, ...] = ()
        self.task = "segment"
        self.keypoints: KeypointSchema | None = None
        self.delay = delay
        self.batches: list[int] = []
        self.fail: Exception | None = None

    def many(self, images: Sequence[Any], /) -> list[Any]:
        self.batches.append(len(images))
        pixels = [EncodedImage(image).decode() for image in images]
        if self.fail is not None:
            raise self.fail
        time.sleep(self.delay * len(images))
        return [prediction(image.shape[0], image.shape[1]) for image in pixels]


def prediction(height: int, width: int) -> Prediction:
    masks = np.zeros((2, height, width), np.uint8)
    masks[0, : height // 2, : width // 2] = 1
    masks[1, height // 2 :, width // 2 :] = 1
    boxes = np.array([[0.123456, 1, width, height], [1, 1.005, 2, 2]], np.float32)
    scores = np.array([0.987654, 0.25], np.float32)
    return Prediction((height, width), boxes, np.array([2, 1]), scores, [mask_to_rle(mask) for mask in masks])


def main(options: dict[str, Any]) -> None:
    from detseg.options import ServeConfig
    from detseg.serving import server
    from detseg.serving.app import create_app
    from detseg.serving.server import listen, run_server

    model = StubModel(options.pop("delay", 0.0))
    if options.pop("fail", False):
        model.fail = RuntimeError("no memory")
    server.WRITE_SECONDS = options.pop("write_seconds", server.WRITE_SECONDS)
    config = ServeConfig(port=0, **options)
    listening = listen(config)
    app = create_app(model, config)
    print(f"127.0.0.1:{listening.getsockname()[1]} ", flush=True)
    run_server(app, config, listening)


if __name__ == "__main__":
    main(ast.literal_eval(sys.argv[1]))
