"""Choose the task of a run."""

from __future__ import annotations

from detseg.annotations import AnnotationTable
from detseg.annotations.obstacles import nothing_to_learn, obstacles
from detseg.errors import DataError
from detseg.models.build import architecture_of


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
        raise DataError(nothing_to_learn(table))
    best = possible[0]
    if best == "keypoints":
        alternative = "" if reasons["segment"] else "; --task segment trains on the masks instead"
        return best, f"there are keypoints{alternative}"
    obstacle = reasons["segment"] if best == "detect" and reasons["segment"] != "there are no masks" else ""
    return best, f"masks are not used: {obstacle}" if obstacle else "the most demanding task with these annotations"
