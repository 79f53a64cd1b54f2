"""Find the tasks that a data set is annotated for, and choose the task of a run."""

from __future__ import annotations

from detseg.annotations import AnnotationTable
from detseg.errors import DataError
from detseg.models.build import architecture_of


def obstacles(table: AnnotationTable) -> dict[str, str]:
    """Return task -> why the data cannot be used for it, "" if it can; the most demanding task first."""
    instances, trained = len(table.instance_rows()), table.trained_rows()
    boxes = "" if len(trained) else "there are no boxes" + (f" ({table.lost.line()})" if table.lost.objects else "")
    if instances and not len(trained):
        boxes = f"all {instances} instances are crowds or ignored, and both are excluded from training"
    without_mask = trained[~table.segmentation.present()[trained]]
    masks = boxes
    if len(without_mask) == len(trained) > 0:
        masks = "there are no masks"
    elif len(without_mask):
        masks = (
            f"only {len(trained) - len(without_mask)} of {len(trained)} instances have a mask; the first without is "
            f"annotation {int(table.annotation_id[without_mask[0]])} (--without-mask box uses their boxes as masks, "
            "drop leaves them out)"
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


def pick_task(task: str | None, model: str | None, table: AnnotationTable) -> tuple[str, str]:
    """Return the task of a run and the reason: the user's task, that of the model, or the most demanding possible one.

    Args:
        task, model: those of the user, or None.

    Raises:
        DataError: the data is not annotated for the task, or task and model contradict each other.
    """
    reasons = obstacles(table)
    option = "--task"
    if model is not None:
        model_task = architecture_of(model).task
        if task is not None and task != model_task:
            raise DataError(f"--model {model} is for --task {model_task}, not for {task}; change one of them")
        task, option = model_task, f"--model {model}"
    possible = [name for name, reason in reasons.items() if not reason]
    if task is not None:
        if reasons[task]:
            others = f"; possible: {', '.join(possible)}" if possible else ""
            raise DataError(f"{table.source} cannot be used for {task} ({option}): {reasons[task]}{others}")
        return task, option
    if not possible:
        details = "; ".join(f"{name}: {reason}" for name, reason in reasons.items())
        raise DataError(f"{table.source}: the data cannot be used for any task ({details})")
    best = possible[0]
    if best == "keypoints":
        alternative = "" if reasons["segment"] else "; --task segment trains on the masks instead"
        return best, f"there are keypoints{alternative}"
    obstacle = reasons["segment"] if best == "detect" and reasons["segment"] != "there are no masks" else ""
    return best, f"masks are not used: {obstacle}" if obstacle else "the most demanding task with these annotations"
