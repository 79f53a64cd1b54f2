"""Write the results of a run: the test split, curves, drawings and figures."""

from __future__ import annotations

from detseg.engine.evaluate import Metrics
from detseg.inference.evaluation import evaluate_table, write_evaluation
from detseg.metrics.coco_metrics import coco_lines
from detseg.options.plan import Plan
from detseg.reports.curves import plot_curves
from detseg.runtime.files import WriteError
from detseg.runtime.reporter import Reporter
from detseg.runtime.run_folder import RunFolder, locked
from detseg.training.failed_write import images_warning
from detseg.training.figure_files import write_result_figures, write_training_figures
from detseg.training.finished_run import FinishedRun
from detseg.training.model_card import write_model_card
from detseg.training.result_images import write_result_images
from detseg.training.run_details import report_features
from detseg.training.trainer import Trainer


def metrics_text(title: str, metrics: Metrics, plan: Plan) -> str:
    """Return the lines of metrics, with COCO's if the options ask for them."""
    first, *others = metrics.lines()
    return "\n".join([f"{title}: {first}", *others, *(coco_lines(metrics) if plan.run.coco_lines else [])])


def write_results(plan: Plan, trainer: Trainer, best: Metrics, reporter: Reporter) -> None:
    """Evaluate the test split, and write all results; images that find no space are a warning."""
    folder, model, device, splits = trainer.folder, trainer.model, trainer.device, trainer.data.splits
    trainer.check_folder()
    test_metrics = None
    if "test" in splits:
        metrics, evaluator = evaluate_table(
            model, splits["test"], device, batch_size=plan.training.batch_size, workers=plan.run.workers,
            reporter=reporter,
        )  # fmt: skip
        trainer.check_folder()
        with locked(RunFolder(folder).evaluation("test")) as lock:
            write_evaluation(lock.path.parent, metrics, evaluator)
        test_metrics = metrics
        text = metrics_text("test split (not used for model selection)", metrics, plan)
        reporter.metrics("test", metrics.to_dict(), text)
    try:
        if "train" in splits:  # else the images are rendered, and the card is that of the weights
            write_model_card(plan, trainer, best, test_metrics)
        _write_images(plan, trainer, best, reporter)
    except WriteError as error:  # without finished.json, a resumed run draws them
        reporter.warning(images_warning(folder, error))
        return
    FinishedRun(len(trainer.rows), plan.training.epochs, trainer.position.best_epoch + 1).write(folder)


def _write_images(plan: Plan, trainer: Trainer, best: Metrics, reporter: Reporter) -> None:
    """Write curves, result images and figures."""
    folder, model, splits = trainer.folder, trainer.model, trainer.data.splits
    if plot_curves(trainer.rows, RunFolder(folder).curves):
        reporter.image(RunFolder(folder).curves)
    else:
        reporter.line("no curves.png: matplotlib is not installed (pip install 'detseg[plot]')")
    if "val" in splits:
        write_result_images(folder, model, splits["val"], trainer.device, best, reporter, trainer.best_predictions)
        if reporter.details:
            report_features(trainer.position.best_epoch + 1, splits["val"], model, reporter)
    if plan.run.figures:
        figure_folder = RunFolder(folder).figures
        write_training_figures(figure_folder, plan, trainer.rows, splits.get("train"), model, reporter)
        if "val" in splits:
            write_result_figures(figure_folder, splits["val"], trainer.best_predictions, model, reporter)
