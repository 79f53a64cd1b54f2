"""The events of a run that only some sinks need: scores by class, drawings, features, weights and the network."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import torch

from detseg.annotations import AnnotationTable
from detseg.boxes import clip_xyxy, xywh_to_xyxy
from detseg.engine.evaluate import Metrics
from detseg.engine.evaluator import AnyEvaluator
from detseg.images import decode_image
from detseg.inference.predictor import Predictor
from detseg.models import Model
from detseg.models.traceable import Traceable
from detseg.options.plan import Plan
from detseg.reports.comparison import AnyPrediction
from detseg.reports.image_figures import compared_images
from detseg.reports.sheet import sheet
from detseg.reports.tensorboard import TensorBoardSink
from detseg.runtime.reporter import Reporter, silent
from detseg.runtime.run_folder import RunFolder
from detseg.training.run_data import RunContext, RunData

UInt8 = npt.NDArray[np.uint8]

DRAWN_IMAGES = 8
"""Validation images that are drawn at each evaluation, always the same ones."""
MOST_FEATURES = 1000
"""Images or objects whose features are computed, at even distances."""
THUMBNAIL = 48
CROP = 96
"""Side in pixels of an object that is cut out for the network."""
MARGIN = 0.1
"""Of the box of such an object on each side, as a share of its width and height."""


@contextmanager
def with_tensorboard(plan: Plan, folder: Path, first_epoch: int, context: RunContext) -> Iterator[RunContext]:
    """With ``plan.run.tensorboard`` the main process also reports to the run's TensorBoard folder in the block.

    Args:
        first_epoch: that will be trained, from 1.
    """
    if not (plan.run.tensorboard and context.processes.is_main):
        yield context
        return
    sink = TensorBoardSink(RunFolder(folder).tensorboard, first_epoch=first_epoch, options=plan.values())
    try:
        yield replace(context, reporter=context.reporter.with_sink(sink))
    finally:
        sink.close()


def gradient_parts(model: Model) -> dict[str, list[torch.nn.Parameter]]:
    """Return the trainable parameters of each part of a model."""
    parts: dict[str, list[torch.nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            parts.setdefault(model.part_of(name), []).append(parameter)
    return parts


def report_network(model: Model, reporter: Reporter) -> None:
    """Report the network as a graph; a line if it cannot be traced."""
    side = model.preprocessing.crop or 128
    inputs = torch.zeros(3, side, side, device=next(model.parameters()).device)
    was_training = model.training
    model.eval()
    try:
        with torch.no_grad(), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of what depends on the image; the graph is only looked at
            traced = torch.jit.trace(Traceable(model).eval(), (inputs,), strict=False, check_trace=False)
    except Exception as error:  # a network of the user may do anything
        reporter.line(f"TensorBoard shows no graph: the network cannot be traced ({str(error).splitlines()[0][:100]})")
    else:
        reporter.detail("model", model=traced, inputs=(inputs,))
    finally:
        model.train(was_training)


def report_evaluation(
    reporter: Reporter,
    plan: Plan,
    data: RunData,
    epoch: int,
    metrics: Metrics | None,
    evaluator: AnyEvaluator | None,
    model: Any,
) -> None:
    """Report an evaluation in detail, if the reporter asks for it and there was one.

    Args:
        epoch: from 1.
        evaluator: with the predictions.
    """
    if not reporter.details or metrics is None or evaluator is None:
        return
    reporter.detail("evaluation", epoch=epoch, metrics=metrics.to_dict(), pr_curves=evaluator.pr_curves)
    table = data.splits.get("val")
    if table is not None:  # else the images are rendered
        image = drawn_predictions(table, evaluator.predictions, model)
        reporter.detail("drawing", epoch=epoch, name="validation", image=image)
    if plan.run.tensorboard_weights:
        values = {name: value.detach().cpu().numpy() for name, value in model.named_parameters()}
        reporter.detail("weights", epoch=epoch, values=values)


def drawn_predictions(table: AnnotationTable, predictions: Mapping[int, AnyPrediction], model: Model) -> UInt8:
    """Draw ground truth and prediction of the first images at even distances: uint8 [H, W, 3]."""
    step = max(1, len(table) // DRAWN_IMAGES)
    records = [table[row] for row in range(0, len(table), step)[:DRAWN_IMAGES]]
    records = [record for record in records if record.image_id in predictions]
    value_range = model.preprocessing.value_range
    compared = compared_images(
        (decode_image(record.path, value_range=value_range) for record in records),
        records,
        (predictions[record.image_id] for record in records),
        table.class_map,
        skeleton=table.keypoint_schema.skeleton if table.keypoint_schema else (),
    )
    images = [image for item in compared for image in item.images]
    captions = [caption.replace("\n", ", ") for item in compared for caption in item.captions]
    return sheet(images, captions, columns=4, reporter=silent())


def report_features(epoch: int, table: AnnotationTable, model: Model, reporter: Reporter) -> None:
    """Report the features of the images of a classifier, or of the objects of a detector, in the validation split.

    An object is cut out with a margin and resized, and its features are the mean of the last map of the backbone.
    """
    predictor, vectors, names, thumbnails = Predictor(model, next(model.parameters()).device), [], [], []
    for pixels, name in _crops(table, predictor):
        tensor = torch.from_numpy(np.ascontiguousarray(np.moveaxis(pixels, -1, 0))).to(predictor.device)
        with torch.inference_mode():
            vectors.append(model.pooled_features([tensor])[0].float().cpu().numpy())
        names.append(name)
        thumbnails.append(cv2.resize(pixels, (THUMBNAIL, THUMBNAIL), interpolation=cv2.INTER_AREA))
    if vectors:
        values: dict[str, Any] = {"vectors": np.stack(vectors), "thumbnails": np.stack(thumbnails)}
        reporter.detail("features", epoch=epoch, class_names=names, **values)


def _crops(table: AnnotationTable, predictor: Predictor) -> Iterator[tuple[UInt8, str]]:
    """Yield the network's input uint8 [h, w, 3] of images or objects, and the class of each."""
    is_classifier = predictor.task == "classify"
    total = len(table) if is_classifier else len(table.trained_rows())
    step, number = -(-total // MOST_FEATURES) or 1, 0
    for record in table:
        used = [0] if is_classifier else np.flatnonzero(~(record.iscrowd | record.ignore)).tolist()
        chosen = [i for position, i in enumerate(used, number) if position % step == 0]
        number += len(used)
        if not chosen:
            continue
        if is_classifier:
            names = record.class_names(table.class_map)
            yield predictor.prepare(record.path)[0], ", ".join(names) or "no class"
            continue
        image = decode_image(record.path, value_range=predictor.preprocessing.value_range)
        for i in chosen:
            yield _cut_out(image, record.boxes_xywh[i]), table.class_map.name_of(int(record.labels[i]))


def _cut_out(image: UInt8, box_xywh: npt.NDArray[np.float64]) -> UInt8:
    """Return an object with a margin, uint8 [96, 96, 3]."""
    size_hw = (image.shape[0], image.shape[1])
    margin = MARGIN * np.array([-box_xywh[2], -box_xywh[3], box_xywh[2], box_xywh[3]])
    x1, y1, x2, y2 = clip_xyxy(np.round(xywh_to_xyxy(box_xywh) + margin), size_hw).astype(int).tolist()
    x1, y1 = min(x1, size_hw[1] - 1), min(y1, size_hw[0] - 1)
    part = image[y1 : max(y2, y1 + 1), x1 : max(x2, x1 + 1)]
    return np.asarray(cv2.resize(part, (CROP, CROP), interpolation=cv2.INTER_LINEAR), np.uint8)
