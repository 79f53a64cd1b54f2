"""Run pycocotools, the reference implementation, to reproduce published numbers including its quirks."""

from __future__ import annotations

import contextlib
import io
import json
import os
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from detseg.metrics.matching import limits


def run_pycocotools(
    ground_truth: str | os.PathLike[str],
    predictions: str | os.PathLike[str],
    iou_type: str,
    max_dets: int,
    sigmas: Sequence[float],
) -> Any:
    """Evaluate two files with pycocotools, using the annotation ids of the file.

    The files must be validated before: pycocotools crashes on polygons that are not finite. Its best-known quirk is
    that an object with annotation id 0 counts as missed even if it was detected (cocoapi #507).

    Returns:
        An object with ``eval`` and ``params.max_dets``, as hotcoco's ``COCOeval``.
    """
    results = json.loads(Path(predictions).read_text(encoding="utf-8-sig"))
    with contextlib.redirect_stdout(io.StringIO()):  # pycocotools reports its progress there
        gt = COCO(str(ground_truth))
        detections = gt.loadRes(results["annotations"] if isinstance(results, dict) else results)
        evaluation = COCOeval(gt, detections, iou_type)
        evaluation.params.maxDets = list(limits(iou_type, max_dets))
        if iou_type == "keypoints":
            evaluation.params.kpt_oks_sigmas = np.asarray(sigmas)
        evaluation.evaluate()
        evaluation.accumulate()
    return SimpleNamespace(eval=evaluation.eval, params=SimpleNamespace(max_dets=evaluation.params.maxDets))
