"""Run an exported file with ONNX Runtime. No torch."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from detseg.errors import DataError, in_file
from detseg.export.exported_file import ExportedModel, exported_model, read_exported
from detseg.export.heatmaps import decode_heatmaps
from detseg.inference.backend import NetworkOutput
from detseg.runtime.machine import available_cores
from detseg.structures import ClassPrediction, FieldPredictions, Float32, RawPrediction

PROVIDERS = {"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider"}
"""Device -> what ONNX Runtime calls it."""
FATAL = 4
"""Severity of ONNX Runtime's messages that are printed; errors are raised."""


class OnnxBackend:
    """As :class:`~detseg.inference.backend.Backend`; images are run one by one."""

    def __init__(self, path: str | os.PathLike[str], device: str | None = None) -> None:
        """Open a file that ``detseg export`` wrote.

        Args:
            device: "cpu", "cuda" or "cuda:1"; None for CUDA if ONNX Runtime has it, else the CPU.

        Raises:
            OSError: the file is missing or cannot be opened.
            DataError: it is corrupt or of a newer format; ONNX Runtime is not installed; the device is not available.
        """
        content = read_exported(path)
        try:
            import onnxruntime
        except ImportError as error:
            raise DataError(f"{path} needs the package onnxruntime ({error}): pip install onnxruntime") from error
        self.device, providers = _provider(device, onnxruntime.get_available_providers())
        options = onnxruntime.SessionOptions()
        options.log_severity_level = FATAL
        options.intra_op_num_threads = available_cores()
        # int8 on processors without VNNI: the same numbers as with it, instead of faster products that can overflow
        options.add_session_config_entry("session.x64quantprecision", "1")
        with in_file(path):
            try:
                self._session: Any = onnxruntime.InferenceSession(content, options, providers=providers)
            except Exception as error:  # its classes have no common base
                reason = str(error).splitlines()[0]
                raise DataError(f"ONNX Runtime cannot run it ({reason}); export the run again") from error
        self._path = path
        self._outputs = [output.name for output in self._session.get_outputs()]
        self.description: ExportedModel = exported_model(self._session.get_modelmeta().custom_metadata_map, path)
        needed = {"probabilities"} if self.description.task == "classify" else {"boxes", "labels", "scores"}
        if not needed <= {*self._outputs} or len(self._session.get_inputs()) != 1:
            raise DataError(
                f"{path}: its outputs are {', '.join(self._outputs)}; a file of detseg has {', '.join(sorted(needed))}"
            )

    def __call__(self, images: Sequence[npt.NDArray[np.uint8]]) -> list[NetworkOutput]:
        return [self._predict(image) for image in images]

    def _predict(self, image: npt.NDArray[np.uint8]) -> NetworkOutput:
        try:
            values = self._session.run(None, {self._session.get_inputs()[0].name: image})
        except Exception as error:  # as above
            height, width = image.shape[:2]
            reason = str(error).splitlines()[0]
            raise DataError(
                f"{self._path}: ONNX Runtime cannot run it on an input of {width} x {height} pixels ({reason}); export "
                "the run again"
            ) from error
        output: dict[str, Any] = dict(zip(self._outputs, values, strict=True))
        if "probabilities" in output:
            return self._classes(output["probabilities"])
        heatmaps, boxes = output.get("heatmaps"), output["boxes"]
        return RawPrediction(
            boxes,
            output["labels"],
            output["scores"],
            output.get("masks"),
            None if heatmaps is None else decode_heatmaps(heatmaps, boxes),
        )

    def _classes(self, probabilities: Float32) -> ClassPrediction | FieldPredictions:
        fields, classes = self.description.label_fields, self.description.class_map
        if probabilities.shape != (len(classes),):
            raise DataError(
                f"{self._path}: {probabilities.size} probabilities for {len(classes)} classes; export again"
            )
        if not fields:
            return ClassPrediction(probabilities)
        ends = np.cumsum([len(field) for field in fields])[:-1]
        parts = np.split(probabilities, ends)
        return FieldPredictions({field.name: ClassPrediction(part) for field, part in zip(fields, parts, strict=True)})


def _provider(device: str | None, available: Sequence[str]) -> tuple[str, list[Any]]:
    """The device, and ONNX Runtime's providers for it."""
    chosen = device or ("cuda" if PROVIDERS["cuda"] in available else "cpu")
    kind, _, index = chosen.partition(":")
    if kind not in PROVIDERS or (index and not (index.isdecimal() and kind == "cuda")):
        raise DataError(f"device {chosen!r} is unknown to ONNX Runtime; use cpu, cuda or cuda:1")
    if PROVIDERS[kind] not in available:
        raise DataError(
            f"device {chosen!r} is not available: this ONNX Runtime has {', '.join(available)}; use cpu or omit the "
            "option"
        )
    settings = {"device_id": int(index)} if index else {}
    return chosen, [(PROVIDERS[kind], settings)]
