"""Convert a model to an ONNX graph: uint8 image in, detections or probabilities out, of any number and size."""

from __future__ import annotations

import importlib.util
import io
import warnings
from typing import Any

import torch
from torch import Tensor, nn

from detseg.errors import DataError
from detseg.export.exported_file import INPUT

OPSET = 17
LATEST_TORCH = "2.14"
"""The latest version of torch whose exporter is known to work."""
AXES = {"boxes": 1, "labels": 1, "scores": 1, "masks": 1, "heatmaps": 1, "probabilities": 0}
"""Output -> number of its first axes whose length is the number of detections."""


class _Network(nn.Module):
    """The model with the input and output of the graph."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        return tuple(self.model.forward_tensors(image.permute(2, 0, 1)).values())


def onnx_graph(model: Any) -> bytes:
    """A serialized ONNX model of a detseg model in eval mode on the CPU.

    Its input ``image`` is uint8 [h, w, 3] RGB, resized as ``model.preprocessing`` resizes; its outputs are those of
    ``forward_tensors``. Height and width are fixed for models whose input has one size (classifiers, SSDLite).

    torch's TorchScript-based exporter is used: its successor (``dynamo=True``) fails on the data-dependent conditions
    of torchvision's detectors.

    Raises:
        DataError: the network cannot be exported, this version of torch has no such exporter, or the package onnx is
            not installed.
    """
    if importlib.util.find_spec("onnx") is None:
        raise DataError("export needs the package onnx: pip install 'detseg[export]'")
    preprocessing = model.preprocessing
    fixed = bool(preprocessing.crop or preprocessing.stretch)
    side = preprocessing.crop or preprocessing.min_size
    # not square, and no multiple of 32: what is constant by mistake would be seen in the comparison with torch
    shape = (side, side, 3) if fixed else (side, side + side // 4 + 1, 3)
    image = torch.randint(0, 256, shape, dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        names = list(model.forward_tensors(image.permute(2, 0, 1)))
    dynamic: dict[str, dict[int, str]] = {name: {0: "detections"} for name in names if AXES[name]}
    if not fixed:
        dynamic[INPUT] = {0: "height", 1: "width"}
    file = io.BytesIO()
    try:
        with warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore")  # on what torchvision's modules guard in a trace, and of the exporter's age
            torch.onnx.export(
                _Network(model).eval(),
                (image,),
                file,  # type: ignore[arg-type]  # the annotation is that of the other exporter
                dynamo=False,
                opset_version=OPSET,
                input_names=[INPUT],
                output_names=names,
                dynamic_axes=dynamic,
            )
    except (TypeError, AttributeError, RuntimeError, torch.onnx.errors.OnnxExporterError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise DataError(
            f"{model.description.arch}: torch {torch.__version__} cannot export it ({reason}); torch {LATEST_TORCH} "
            "exports all models of this project, except networks of your own that cannot be traced"
        ) from error
    return file.getvalue()
