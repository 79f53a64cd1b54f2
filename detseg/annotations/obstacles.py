"""Say for which tasks a data set cannot be used, and why: what ``train`` refuses, and ``inspect`` reports."""

from __future__ import annotations

from detseg.annotations.instance_name import instance_name
from detseg.annotations.table import AnnotationTable


def obstacles(table: AnnotationTable) -> dict[str, str]:
    """Return task -> why the data cannot be used for it, "" if it can; the most demanding task first."""
    instances, trained = len(table.instance_rows()), table.trained_rows()
    boxes = "" if len(trained) else "there are no boxes" + (f" ({table.lost.line()})" if table.lost.objects else "")
    if instances and not len(trained):
        boxes = f"all {instances} instances are crowds or ignored (iscrowd or ignore is 1), and excluded from training"
    without_mask = trained[~table.segmentation.present()[trained]]
    masks = boxes
    if len(without_mask) == len(trained) > 0:
        masks = "there are no masks"
    elif len(without_mask):
        masks = (
            f"only {len(trained) - len(without_mask)} of {len(trained)} instances have a mask; the first without is "
            f"{instance_name(table, int(without_mask[0]))} (--without-mask box uses their boxes as masks, drop "
            "leaves them out)"
        )
    points = boxes
    if not boxes and not table.has_keypoints:
        points = "there are no keypoints"
    classes = "" if table.has_class_index else "there are no class folders or label columns"
    single_class = [field.name for field in table.label_fields if len(field) < 2]
    if not classes and single_class:
        classes = f"the label column {single_class[0]!r} has only one class; exclude it: list the others with --classes"
    if not classes and len(table.class_map) < 2:
        classes = f"there is only one class, {table.class_map.names[0]!r}, and classification needs at least two"
    return {"keypoints": points, "segment": masks, "detect": boxes, "classify": classes}


def nothing_to_learn(table: AnnotationTable) -> str:
    """Return why the data cannot be used for any task; "" if it can be used for one."""
    reasons = obstacles(table)
    if not all(reasons.values()):
        return ""
    details = "; ".join(f"{name}: {reason}" for name, reason in reasons.items())
    remedy = "annotate objects, or give each image a class"
    return f"{table.source}: the data cannot be used for any task ({details}); {remedy}"


def no_training_instances(train: AnnotationTable, table: AnnotationTable) -> str:
    """Return why nothing can be learned from the training split of ``table``; "" if it has instances or classes."""
    if train.has_boxes or not table.has_boxes:
        return ""
    return (
        f"{table.source}: none of the {len(train)} training images has an instance; all {len(table.trained_rows())} "
        "are in other images: annotate the training images, or use all images for training (--val 0, and no --subset)"
    )
