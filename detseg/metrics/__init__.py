"""Evaluation metrics: COCO AP for detectors, accuracy for classifiers. Does not import torch."""

from detseg.metrics.classification import ClassificationEvaluator, ClassificationMetrics
from detseg.metrics.coco import CocoEvaluator
from detseg.metrics.coco_metrics import CocoMetrics
from detseg.metrics.ground_truth import GroundTruth
from detseg.metrics.ground_truth_file import read_ground_truth
from detseg.metrics.label_fields import FieldEvaluator, FieldMetrics
from detseg.metrics.results_file import evaluate_files

__all__ = [
    "ClassificationEvaluator",
    "ClassificationMetrics",
    "CocoEvaluator",
    "CocoMetrics",
    "FieldEvaluator",
    "FieldMetrics",
    "GroundTruth",
    "evaluate_files",
    "read_ground_truth",
]
