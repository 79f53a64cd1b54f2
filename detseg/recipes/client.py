"""Send images to a server; print its answers, or draw them."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from detseg.annotations.repair_log import RepairLog
from detseg.classes import ClassMap, LabelField, joined
from detseg.images import decode_image
from detseg.inference.earlier_outputs import check_output
from detseg.inference.image_inputs import find_images
from detseg.inference.output_paths import drawing_path
from detseg.options import ClientConfig
from detseg.reports.draw import draw_prediction
from detseg.reports.sheet import write_image
from detseg.runtime.reporter import Reporter, terminal
from detseg.serving.client import Client, ServerError
from detseg.serving.reply import from_reply
from detseg.short_text import counted, printable


def client(config: ClientConfig, *, reporter: Reporter | None = None) -> bool:
    """Send each of ``config.images``; an image that fails is reported and costs that image only.

    Returns:
        Whether all images have their answers.

    Raises:
        DataError: there are no images, or the server is not reached.
        OSError: the output cannot be written.
    """
    reporter, notes = reporter or terminal(), RepairLog()
    server = Client(config.url, token=config.token or os.environ.get("DETSEG_TOKEN"), timeout=config.timeout)
    if config.output is not None:
        check_output(Path(config.output))
    files = find_images(config.images, notes, output=config.output)
    for line in notes.lines():
        reporter.warning(f"note: {line}", stderr=True)
    model = server.model()  # also: an address or a token that is wrong is one error
    masks = config.masks if config.output is None else "rle"
    failed = 0
    for path, name in files:
        try:
            answer = server.predict(path, masks=masks, min_score=config.min_score, top=config.top)
            if config.output is None:
                reporter.line(json.dumps({"file": name, **answer}))
            else:
                _draw(answer, model, path, drawing_path(Path(config.output), name), reporter)
        except (ServerError, ValueError, OSError) as error:
            failed += 1
            reporter.warning(printable(f"{name}: {error}"), stderr=True)
    if config.output is not None:
        reporter.done(Path(config.output), f"wrote {counted(len(files) - failed, 'image')} to {config.output}")
    return not failed


def _draw(answer: dict[str, Any], model: dict[str, Any], path: Path, drawing: Path, reporter: Reporter) -> None:
    prediction, image = from_reply(answer, model), decode_image(path)
    fields = [LabelField(name, ClassMap.from_names(names)) for name, names in model["label_fields"].items()]
    class_map = joined(fields) if fields else ClassMap.from_names(model["classes"])
    drawn = draw_prediction(image, prediction, class_map, min_score=0, skeleton=model["skeleton"], reporter=reporter)
    write_image(drawing, drawn)
