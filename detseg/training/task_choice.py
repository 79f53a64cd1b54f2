"""What a data set can teach, and which of it a run learns."""

from __future__ import annotations

from detseg.annotations import AnnotationTable
from detseg.errors import DataError
from detseg.models.build import architecture_of
from detseg.options import TrainConfig


def obstacles(table: AnnotationTable) -> dict[str, str]:
    """Task -> why the data cannot teach it, "" if it can; the most demanding task first."""
    instances, trained = len(table.instance_rows()), table.trained_rows()
    boxes = "" if len(trained) else "there are no boxes"
    if instances and not len(trained):
        boxes = f"all {instances} instances are crowds or ignored, and neither is trained on"
    bare = trained[~table.segmentation.present()[trained]]
    masks = boxes
    if len(bare) == len(trained) > 0:
        masks = "there are no masks"
    elif len(bare):
        masks = (
            f"only {len(trained) - len(bare)} of {len(trained)} instances have a mask; the first without is "
            f"annotation {int(table.annotation_id[bare[0]])}"
        )
    points = boxes
    if not boxes and not table.has_keypoints:
        points = "there are no keypoints"
    classes = "" if table.has_class_index else "there are no class folders or label columns"
    alone = [field.name for field in table.label_fields if len(field) < 2]
    if not classes and alone:
        classes = f"the label column {alone[0]!r} has only one class; leave it out: name the others with --classes"
    if not classes and len(table.class_map) < 2:
        classes = f"there is only one class, {table.class_map.names[0]!r}, and nothing to tell it from"
    return {"keypoints": points, "segment": masks, "detect": boxes, "classify": classes}


def pick_task(config: TrainConfig, table: AnnotationTable) -> tuple[str, str]:
    """The task of a run and the reason: the user's, that of the model, or the most that the data can teach.

    Raises:
        DataError: the data cannot teach it, or task and model contradict each other.
    """
    why_not = obstacles(table)
    wanted, because = config.task, "--task"
    if config.model is not None:
        of_model = architecture_of(config.model).task
        if wanted is not None and wanted != of_model:
            raise DataError(f"--model {config.model} is for --task {of_model}, not for {wanted}; change one of them")
        wanted, because = of_model, f"--model {config.model}"
    possible = [task for task, reason in why_not.items() if not reason]
    if wanted is not None:
        if why_not[wanted]:
            others = f"; it can teach {' and '.join(possible)}" if possible else ""
            raise DataError(f"{table.source} cannot teach {wanted} ({because}): {why_not[wanted]}{others}")
        return wanted, because
    if not possible:
        reasons = "; ".join(f"{task}: {reason}" for task, reason in why_not.items())
        raise DataError(f"{table.source}: there is nothing to learn here ({reasons})")
    task = possible[0]
    if task == "keypoints":
        instead = "" if why_not["segment"] else "; --task segment learns the masks instead"
        return task, f"there are keypoints{instead}"
    missed = why_not["segment"] if task == "detect" and why_not["segment"] != "there are no masks" else ""
    return task, f"no masks are learned: {missed}" if missed else "the most that these annotations can teach"
