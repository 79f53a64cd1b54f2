"""Quantize an ONNX graph to int8 with ONNX Runtime, calibrated on images: all of it, or parts. No torch."""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from detseg.errors import DataError
from detseg.export.exported_file import INPUT

WEIGHTED = ("Conv", "Gemm", "MatMul")
ACTIVATIONS = ("Relu", "Clip")
"""Their outputs are quantized instead of those of the layer before; ONNX Runtime then computes both in one step."""
HEADS = ("rpn", "roi_heads", "head")
NECK = ("fpn",)
"""First parts of the names of nodes, which are names of modules."""


def quantizable_parts(graph: bytes) -> dict[str, list[str]]:
    """What can be quantized -> the names of its nodes; the most first. Only layers with weights and the activations
    after them are: box arithmetic, NMS and the like need the range of float.

    "everything"; "all but depthwise convolutions", which have few weights and lose the most; of detectors "neck and
    heads", and "heads".
    """
    nodes = [node for node in _loaded(graph).graph.node if node.op_type in (*WEIGHTED, *ACTIVATIONS)]
    parts = {
        "everything": [node.name for node in nodes],
        "all but depthwise convolutions": [node.name for node in nodes if not _is_depthwise(node)],
        "neck and heads": [node.name for node in nodes if _module(node) in (*HEADS, *NECK)],
        "heads": [node.name for node in nodes if _module(node) in HEADS],
    }
    weighted = {node.name for node in nodes if node.op_type in WEIGHTED}
    different: dict[str, list[str]] = {}
    for name, names in parts.items():
        if weighted.intersection(names) and names not in different.values():
            different[name] = names
    return different


def quantized(graph: bytes, nodes: Sequence[str], images: Sequence[npt.NDArray[np.uint8]]) -> bytes:
    """The graph with int8 weights (per channel) and uint8 activations in ``nodes``.

    Args:
        images: inputs of the graph, whose activations give the ranges. In each of them the network must find something:
            without detections, the activations of the heads have no range.

    Raises:
        DataError: onnxruntime or onnx is not installed, or cannot quantize the graph.
    """
    try:
        from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static
    except ImportError as error:
        raise DataError(f"int8 needs onnx and onnxruntime ({error}): pip install 'detseg[export]'") from error

    class Reader(CalibrationDataReader):
        def __init__(self) -> None:
            self._images = iter(images)

        def get_next(self) -> dict[str, Any] | None:
            image = next(self._images, None)
            return None if image is None else {INPUT: image}

    with tempfile.TemporaryDirectory() as folder, _quiet():
        source, target = Path(folder) / "float.onnx", Path(folder) / "int8.onnx"
        source.write_bytes(_with_own_parameters(graph, nodes))
        try:
            quantize_static(
                source,
                target,
                Reader(),
                quant_format=QuantFormat.QDQ,
                op_types_to_quantize=[*WEIGHTED, *ACTIVATIONS],
                nodes_to_quantize=list(nodes),
                per_channel=True,
                activation_type=QuantType.QUInt8,
                weight_type=QuantType.QInt8,
            )
        except Exception as error:  # ONNX Runtime's classes have no common base
            reason = (str(error).splitlines() or [type(error).__name__])[0]
            raise DataError(f"ONNX Runtime cannot quantize the graph ({reason}); export with --to onnx") from error
        return target.read_bytes()


def _with_own_parameters(graph: bytes, nodes: Sequence[str]) -> bytes:
    """The graph with weights and a bias for each of ``nodes``: layers that are applied to several levels of a pyramid
    share theirs, and ONNX Runtime refuses a file in which shared ones are quantized."""
    model, used = _loaded(graph), set[str]()
    tensors = {tensor.name: tensor for tensor in model.graph.initializer}
    for node in model.graph.node:
        if node.name not in nodes or node.op_type not in WEIGHTED:
            continue
        for index in range(1, len(node.input)):
            name = node.input[index]
            if name in used and name in tensors:
                copied = model.graph.initializer.add()
                copied.CopyFrom(tensors[name])
                copied.name = node.input[index] = f"{name}_of_{node.name}"
            used.add(name)
    content: bytes = model.SerializeToString()
    return content


def _loaded(graph: bytes) -> Any:
    import onnx

    return onnx.load_from_string(graph)


def _module(node: Any) -> str:
    """ "roi_heads" of a node "/roi_heads/box_head/fc6/Gemm"; empty outside of modules."""
    parts = node.name.split("/")
    return str(parts[1]) if len(parts) > 2 else ""


def _is_depthwise(node: Any) -> bool:
    return any(attribute.name == "group" and attribute.i > 1 for attribute in node.attribute)


@contextmanager
def _quiet() -> Iterator[None]:
    """Without the advice that ONNX Runtime logs, on steps that do not work for graphs of detectors."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(before)
