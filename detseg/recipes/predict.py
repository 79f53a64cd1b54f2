"""Run a trained model on images and folders; write results and images."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from detseg.annotations.own_files import DRAWINGS, PREDICTED_IMAGES, PREDICTION_LINES
from detseg.annotations.rename import rename_class_map
from detseg.annotations.repair_log import NAMED, RepairLog
from detseg.errors import DataError
from detseg.inference.earlier_outputs import check_output, remove_earlier
from detseg.inference.image_inputs import find_images
from detseg.inference.image_outputs import ImageOutputs
from detseg.inference.output_paths import OutputPaths
from detseg.inference.predicting_processes import PredictingProcesses, predicting_processes, threads_per_process
from detseg.inference.prediction_files import (
    PredictionLines,
    join_parts,
    read_failures,
    read_results,
)
from detseg.inference.prediction_run import WrittenCounts, check_outputs, image_kinds, write_outputs, write_stream
from detseg.inference.prediction_stream import ImageFile, Share, default_threads, predicted_images
from detseg.inference.predictor import Predictor
from detseg.inference.video_prediction import (
    Source,
    check_sources,
    drawn_video,
    parse_frames,
    predict_frames,
    video_sources,
)
from detseg.options import PredictConfig
from detseg.runtime.reporter import Reporter, silent, terminal
from detseg.runtime.run_folder import RunFolder, locked
from detseg.short_text import counted, printable_name

BATCH_ON_CUDA = 8
"""Default of ``--batch-size`` on a GPU; a CPU computes one image at a time as fast."""


@dataclass(frozen=True)
class PredictResult:
    """What ``predict`` wrote.

    Attributes:
        folder: of predictions.jsonl, predictions.json, images.json and the drawings.
        images: number of images.
        failures: number of images without results.
        not_drawn: number of drawings and other files of single images that could not be written.
        no_space: why no more images were drawn: the disk is full; "" if it is not.
    """

    folder: Path
    images: int
    failures: int
    not_drawn: int
    no_space: str = ""

    @property
    def is_complete(self) -> bool:
        """Whether every image has its results and its other outputs."""
        return not (self.failures or self.not_drawn or self.no_space)

    @property
    def results(self) -> list[dict[str, Any]]:
        """COCO results format with file names, one dict per detection (for classifiers, per image or label field); read
        from predictions.jsonl."""
        return [result for line in read_results(self.folder) for result in line["results"]]

    @property
    def failed(self) -> list[str]:
        """``file: reason`` for each image without results."""
        return list(read_failures(self.folder))


def predict(config: PredictConfig, *, reporter: Reporter | None = None) -> PredictResult:
    """Predict all of ``config.images``; a file that cannot be used is reported and costs that file only.

    Results are written as they come, so that memory does not depend on their number. Under ``torchrun`` each process
    predicts a part of the images, and the main process joins the results: the same as those of one process.

    Raises:
        DataError: there are no images, or none can be read; or the output would replace other files.
        OSError: the output cannot be written.
    """
    with predicting_processes(config.device) as processes, ExitStack() as stack:
        reporter = (reporter or terminal()) if processes.is_main else silent()
        sources, frames = video_sources(config.images), parse_frames(config.frames)
        check_sources(sources, config.outputs, processes.world, is_part=config.frames is not None or config.stride > 1)
        files = [] if sources else _find_files(config, processes, reporter)
        predictor = Predictor(
            config.run, processes.device, then=config.then, flip=config.flip,
            tile=config.tile, overlap=config.overlap, whole_image=config.whole_image,
        )  # fmt: skip
        outputs = {str(kind) for kind in config.outputs if config.draw or kind != "images"}
        check_outputs(outputs, predictor)
        if config.rename is not None:
            predictor.class_map = rename_class_map(
                predictor.class_map, predictor.label_fields, config.rename, f"the run {config.run}"
            )
        output = Path(config.output)

        def start() -> list[str]:
            check_output(output)
            stack.enter_context(locked(output, images=DRAWINGS))
            return [*predictor.preprocessing.lines(), *remove_earlier(output)]

        reporter.lines(processes.from_main(start))
        if sources:
            return _predict_videos(config, sources, frames, predictor, outputs, reporter)
        return _predict(config, files, predictor, outputs, processes, reporter)


def _find_files(config: PredictConfig, processes: PredictingProcesses, reporter: Reporter) -> list[ImageFile]:
    """The images, which the main process looks for: it has the standard input."""
    notes = RepairLog()

    def find() -> list[tuple[str, str]]:
        check_output(Path(config.output))
        files = find_images(config.images, notes, config.follow_links, config.output)
        return [(str(path), name) for path, name in files]

    files = processes.from_main(find)
    reporter.lines([f"note: {line}" for line in notes.lines()])
    return [ImageFile(image_id, Path(path), name) for image_id, (path, name) in enumerate(files, start=1)]


def _predict_videos(
    config: PredictConfig,
    sources: list[Source],
    frames: tuple[int, int | None],
    predictor: Predictor,
    outputs: set[str],
    reporter: Reporter,
) -> PredictResult:
    output = Path(config.output)
    number, written = predict_frames(
        sources, predictor, output, frames=frames, stride=config.stride, batch_size=_batch_size(config, predictor),
        min_score=config.min_score, is_drawn="images" in outputs, reporter=reporter,
    )  # fmt: skip
    write_outputs(OutputPaths(output, ()), outputs, predictor, {}, config.min_score)
    result = PredictResult(output, number, written.failures, int(bool(written.no_space)), written.no_space)
    _report(result, written, outputs, config, reporter, [drawn_video(output, source.name) for source in sources])
    return result


def _batch_size(config: PredictConfig, predictor: Predictor) -> int:
    return config.batch_size or (BATCH_ON_CUDA if str(predictor.device).startswith("cuda") else 1)


def _predict(
    config: PredictConfig,
    files: list[ImageFile],
    predictor: Predictor,
    outputs: set[str],
    processes: PredictingProcesses,
    reporter: Reporter,
) -> PredictResult:
    output, world = Path(config.output), processes.world
    paths = OutputPaths(output, (file.name for file in files))
    batch_size = _batch_size(config, predictor)
    threads = threads_per_process(default_threads()) if config.workers is None else config.workers
    share = Share(processes.rank, world)
    stream = predicted_images(files, predictor, batch_size=batch_size, threads=threads, share=share)
    progress = reporter.progress(stream, "predict", total=len(files) // world, unit="image", leave=True)
    images = ImageOutputs(paths, image_kinds(outputs), predictor, config.min_score, reporter)
    with PredictionLines(output, None if world == 1 else processes.rank) as lines:
        written = write_stream(progress, lines, images, predictor, config.min_score)
    parts = processes.gather(written.to_dict())

    def finish() -> list[Any]:
        total = WrittenCounts.of_all(parts)
        if world > 1:
            join_parts(output, world, batch_size)
        sources = {file.name: file.path for file in files} if "labelme" in outputs else {}
        notes, not_written = write_outputs(paths, outputs, predictor, sources, config.min_score)
        total.not_written.merge(not_written)
        result = PredictResult(
            output, len(files), total.failures, sum(total.not_written.counts.values()), total.no_space
        )
        _report(result, total, outputs, config, reporter)
        reporter.lines([f"note: {line}" for log in (notes, total.not_written) for line in log.lines()])
        return [result.failures, result.not_drawn, result.no_space]

    return PredictResult(output, len(files), *processes.from_main(finish))


def _report(
    result: PredictResult,
    written: WrittenCounts,
    outputs: set[str],
    config: PredictConfig,
    reporter: Reporter,
    videos: Sequence[Path] = (),
) -> None:
    """Report the counts, the files and the first images that failed.

    Raises:
        DataError: no image could be read.
    """
    output, failures, what = result.folder, result.failures, "frame" if videos else "image"
    first = [printable_name(message) for message in islice(read_failures(output), NAMED)]
    if failures == result.images:
        raise DataError(f"none of {counted(failures, what)} could be read: {'; '.join(first)}")
    reporter.line(
        f"{result.images - failures} {what}s, {written.results} results, {written.above} of them with a score >= "
        f"{config.min_score}" + (f"; {failures} of {result.images} {what}s could not be read" if failures else "")
    )
    main = RunFolder(output).predictions if "coco" in outputs else output / PREDICTION_LINES
    more = sorted(f"predicted-{kind}" for kind in outputs - {"coco", "jsonl", "csv", "images"})
    more += ["predictions.csv"] * ("csv" in outputs)
    drawn = [*(videos or [output / DRAWINGS])] if "images" in outputs else []
    names = [str(path) for path in [*drawn, *(output / name for name in more)]]
    reporter.done(output, " and ".join([f"wrote {main}", *names]))
    for message in first:
        reporter.warning(f"could not be read: {message}")
    if failures > len(first):
        reporter.warning(f"and {failures - len(first)} more, which {output / PREDICTED_IMAGES} lists")
