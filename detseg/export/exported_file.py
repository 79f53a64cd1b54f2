"""One file with the network and everything needed to use it: an ONNX graph, metadata and a checksum. No torch.

The metadata and the checksum are entries of ONNX's ``metadata_props`` at the end of the file. (Protocol buffers can be
concatenated: the graph's bytes stay as they were written.) The checksum is the last entry, of all bytes before it, so
that it is found and compared without a parser.
"""

from __future__ import annotations

import hashlib
import os
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import msgspec

from detseg.classes import ClassMap, LabelField
from detseg.errors import DataError, in_file
from detseg.keypoints import KeypointSchema
from detseg.preprocess import Preprocessing
from detseg.runtime.checksum import file_checksum
from detseg.runtime.files import atomic_write
from detseg.runtime.missing_path import missing_path
from detseg.tasks import Task
from detseg.version import __version__

FORMAT = 1
"""Version of the format of these files; a program reads its own and earlier ones."""
SUFFIX = ".onnx"
INPUT = "image"
"""Name of the input of the graph."""
MODEL_KEY = "detseg"
CHECKSUM_KEY = "detseg_sha256"
LARGEST = 2**31 - 1
"""Bytes: the limit of protocol buffers, and so of ONNX files without a second file."""


@dataclass(frozen=True)
class Quantization:
    """What of a network is int8, and what that costs.

    Attributes:
        parts: of the network, as ``quantizable_parts`` names them.
        images: number of validation images that the losses were measured on.
        losses: metric, such as "bbox_AP" -> share of it that is lost, 0.01 for one hundredth; negative for a gain.
    """

    parts: str
    images: int
    losses: dict[str, float]

    @property
    def loss(self) -> float:
        """The largest of the losses."""
        return max(self.losses.values(), default=0.0)


@dataclass(frozen=True)
class ExportedModel:
    """Everything about an exported model except its graph; saved as JSON in the file.

    Attributes:
        arch, task, class_map, preprocessing, keypoints, label_fields, score_threshold, nms_threshold,
            detections_per_image: as in ``ModelDescription``; thresholds and limits are part of the graph.
        checkpoint: sha256 of the checkpoint file that was exported.
        weights_licence: licence of the starting weights; empty if it is not known.
        card: the model card of the run, in Markdown; empty if it had none.
        quantization: what is int8; None for a float32 network.
        version: of this program, which wrote the file.
        format: version of the format of the file.
    """

    arch: str
    task: Task
    class_map: ClassMap
    preprocessing: Preprocessing
    score_threshold: float
    nms_threshold: float
    detections_per_image: int
    keypoints: KeypointSchema | None = None
    label_fields: tuple[LabelField, ...] = ()
    checkpoint: str = ""
    weights_licence: str = ""
    card: str = ""
    quantization: Quantization | None = None
    version: str = ""
    format: int = FORMAT

    @classmethod
    def of(cls, description: Any, *, checkpoint: Path, weights_licence: str, card: str = "") -> ExportedModel:
        """The exported model of a ``ModelDescription`` and the file of its weights."""
        own = ("checkpoint", "weights_licence", "card", "quantization", "version", "format")
        shared = {item.name: getattr(description, item.name) for item in fields(cls) if item.name not in own}
        checksum = file_checksum(checkpoint)
        return cls(**shared, checkpoint=checksum, weights_licence=weights_licence, card=card, version=__version__)


def is_exported(path: object) -> bool:
    """Whether ``path`` names an exported file, by its suffix."""
    return isinstance(path, (str, os.PathLike)) and Path(path).suffix.lower() == SUFFIX and not Path(path).is_dir()


def exported_content(graph: bytes, model: ExportedModel) -> bytes:
    """The content of an exported file: an ONNX model with ``model`` as JSON in its metadata, and the checksum."""
    content = graph + _entry(MODEL_KEY, msgspec.json.encode(asdict(model)))
    content += _entry(CHECKSUM_KEY, hashlib.sha256(content).hexdigest().encode())
    if len(content) > LARGEST:
        raise DataError(f"the exported file would have {len(content) / 1e9:.1f} GB; ONNX files have at most 2.1 GB")
    return content


def write_exported(path: str | os.PathLike[str], content: bytes) -> None:
    """Write the content of an exported file to ``path``, atomically."""
    with atomic_write(path) as file:
        file.write(content)


def read_exported(path: str | os.PathLike[str]) -> bytes:
    """The content of an exported file, after a check of its checksum.

    Raises:
        OSError: the file is missing or cannot be opened.
        DataError: it was not written by ``detseg export``, or is corrupt.
    """
    path = Path(path)
    if not path.is_file():
        raise missing_path(path, "exported file")
    if path.stat().st_size > LARGEST:
        raise DataError(f"{path}: {path.stat().st_size} bytes; an ONNX file has at most {LARGEST}; use another file")
    content = path.read_bytes()
    end = len(content) - len(_entry(CHECKSUM_KEY, b"0" * 64))
    if _entry(CHECKSUM_KEY, hashlib.sha256(content[: max(end, 0)]).hexdigest().encode()) != content[max(end, 0) :]:
        raise DataError(
            f"{path}: its checksum is wrong or missing: it is corrupt, or was not written by detseg export; export the "
            "run again"
        )
    return content


def exported_model(metadata: dict[str, str], path: str | os.PathLike[str]) -> ExportedModel:
    """The model that the metadata of an exported file describes.

    Raises:
        DataError: the metadata is missing, invalid, or of a newer format.
    """
    with in_file(path):
        value: Any = msgspec.json.decode(metadata.get(MODEL_KEY, "null"))
        written = value.get("format", 0) if isinstance(value, dict) else 0
        if isinstance(written, int) and written > FORMAT:
            raise DataError(f"format {written} is newer than {FORMAT}, the newest that this version of detseg reads")
        return msgspec.convert(value, ExportedModel)


def _entry(key: str, value: bytes) -> bytes:
    """An entry of ``ModelProto.metadata_props`` (field 14) as protocol buffers write it: key is field 1, value 2."""
    pair = b"\x0a" + _varint(len(key)) + key.encode() + b"\x12" + _varint(len(value)) + value
    return b"\x72" + _varint(len(pair)) + pair


def _varint(number: int) -> bytes:
    """A number in groups of 7 bits, lowest first; the highest bit of a byte says that another one follows."""
    groups = bytearray()
    while number > 127:
        groups.append(number & 127 | 128)
        number >>= 7
    return bytes([*groups, number])
