"""Export a trained model to one file that runs without torch, and compare it with torch."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path

from detseg.checkpoints.checkpoint import load
from detseg.errors import DataError
from detseg.export.exported_file import (
    SUFFIX,
    ExportedModel,
    Quantization,
    exported_content,
    is_exported,
    read_exported,
    write_exported,
)
from detseg.export.graph import onnx_graph
from detseg.inference.agreement import Agreement
from detseg.options import ExportConfig
from detseg.runtime.reporter import Reporter, terminal
from detseg.runtime.run_folder import RunFolder
from detseg.training.compared_images import compare_with_torch
from detseg.training.int8_choice import int8_content
from detseg.training.model_card import read_card
from detseg.training.run_evaluation import saved_options
from detseg.training.weights_card import starting_licence


@dataclass(frozen=True)
class ExportResult:
    """What ``export`` wrote.

    Attributes:
        file: the exported file.
        agreement: differences of its float32 network from torch; None if there were no images to compare on.
        quantization: what of it is int8, and the loss; None for float32.
    """

    file: Path
    agreement: Agreement | None
    quantization: Quantization | None = None


def export(config: ExportConfig, *, reporter: Reporter | None = None) -> ExportResult:
    """Export ``config.run``; the file is written only if its predictions equal those of torch.

    Raises:
        DataError: the run cannot be exported, the file differs from torch, or another file would be replaced.
        OSError: the run is missing, or the file cannot be written.
    """
    reporter = reporter or terminal()
    run = Path(config.run)
    output = Path(config.output) if config.output else RunFolder.of(run).path / f"model{SUFFIX}"
    _check_places(run, output)
    model = load(run)
    described = ExportedModel.of(
        model.description,
        checkpoint=RunFolder(run).best if run.is_dir() else run,
        weights_licence=starting_licence(saved_options(run).get("weights")),
        card=read_card(run),
    )
    graph, quantization = onnx_graph(model), None
    content = exported_content(graph, described)
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / f"model{SUFFIX}"
        write_exported(file, content)
        agreement = compare_with_torch(config, model, file, reporter)
    if config.to == "onnx-int8":
        content, quantization = int8_content(config, model, graph, described, reporter)
    write_exported(output, content)
    reporter.done(output, f"wrote {output}, {len(content) / 1e6:.1f} MB")
    return ExportResult(output, agreement, quantization)


def _check_places(run: Path, output: Path) -> None:
    if is_exported(run):
        raise DataError(f"{run} is an exported file; pass the run folder or a checkpoint file")
    if output.suffix.lower() != SUFFIX or output.is_dir():
        raise DataError(f"--output {output} is no name of an ONNX file; give one that ends with {SUFFIX}")
    if output.exists():
        try:
            read_exported(output)
        except DataError as error:
            raise DataError(f"{output} exists, and no earlier export wrote it; give another --output") from error
