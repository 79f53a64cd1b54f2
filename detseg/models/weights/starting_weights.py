"""Open starting weights once, check them at this one place, and hand them on as a value."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from torch import Tensor

from detseg.errors import DataError, in_file
from detseg.models.architecture_lookup import architecture_of, no_coco_weights
from detseg.models.description import ModelDescription
from detseg.models.timm_backbone import PREFIX, backbone_spec
from detseg.models.weights.bundled import BUNDLED
from detseg.models.weights.published import fetch, file_name
from detseg.models.weights.source_classes import SourceClasses, classes_of, classes_of_published_file, published_classes
from detseg.models.weights.state_files import WeightsFile, read_weights_file
from detseg.models.weights.timm_weights import fetch_timm, timm_origin

Kind = Literal["none", "coco", "imagenet", "bundled", "file", "checkpoint"]


@dataclass(frozen=True)
class Origin:
    """Where starting weights came from, for reports and model cards.

    Attributes:
        summary: "random", "coco (file name)", "imagenet (file name)", or the file name and its sha256.
        path: their file; None for random initialization and published weights.
    """

    summary: str
    path: Path | None = None


class StartingWeights:
    """The weights that a model is initialized with: one value for everything that depends on them.

    Opening reads nothing. The file is read, and its checksum verified, when the first attribute needs it; published
    weights are downloaded when ``state`` does. Each happens once, however many functions get the value.

    Attributes:
        source: "none", "coco", "imagenet", "bundled", or the user's path, for messages.
        arch: the model they are for, which determines the published file; files are independent of it.
    """

    def __init__(self, source: str, arch: str | None) -> None:
        self.source = source
        self.arch = arch
        self._content: WeightsFile | None = None
        self._downloaded: dict[str, Tensor] | None = None

    @classmethod
    def open(cls, weights: str | os.PathLike[str] | StartingWeights, arch: str | None = None) -> StartingWeights:
        """Return ``weights`` as a value.

        Args:
            weights: "none", "coco", "imagenet", "bundled", a file or a run folder (see ``read_state_dict``), or the
                value itself, which is returned.
            arch: the model to initialize; necessary for the tensors and classes of "coco" and "imagenet".
        """
        if not isinstance(weights, StartingWeights):
            return cls(os.fspath(weights), arch)
        return weights if weights.is_file or weights.arch == arch else cls(weights.source, arch)

    @property
    def is_file(self) -> bool:
        """Whether they are in a file on this machine: neither "none" nor published."""
        return self.source not in ("none", "coco", "imagenet")

    @property
    def kind(self) -> Kind:
        """What they are; "checkpoint" for a file written by this project.

        Raises:
            DataError, OSError: as ``read_state_dict``.
        """
        match self.source:
            case "none" | "coco" | "imagenet" | "bundled" as name:
                return name
        return "file" if self._file().header is None else "checkpoint"

    @property
    def state(self) -> dict[str, Tensor]:
        """Tensor name -> tensor, on the CPU, in the file's dtypes. Not to be modified.

        Raises:
            DataError: the file is corrupt, or not of this kind; published weights that do not exist for the model or
                cannot be downloaded; weights "none", which have no tensors.
            OSError: the file cannot be opened.
        """
        if self.is_file:
            if not self._file().state:  # released
                self._content = None
            return self._file().state
        if self._downloaded is None:
            self._downloaded = self._download()
        return self._downloaded

    @cached_property
    def description(self) -> ModelDescription | None:
        """The description of the model in a checkpoint of this project; None for all other weights.

        Raises:
            DataError, OSError: as ``state``; or the description is from another version.
        """
        header = self._file().header if self.is_file else None
        if header is None:
            return None
        with in_file(self._file().path):
            return ModelDescription.from_dict(header["model"])

    @cached_property
    def classes(self) -> SourceClasses | None:
        """The class of each row of the output layers; None if unknown.

        COCO weights are recognized by the name "coco" and, for a path, by the name of the published file. A checkpoint
        of this project contains its class names.

        Raises:
            DataError, OSError: as ``description``.
        """
        if self.source == "coco":
            return published_classes(self._published())
        if not self.is_file:
            return None
        classes = classes_of_published_file(Path(self.source).name)
        return classes or (None if self.description is None else classes_of(self.description))

    @property
    def title(self) -> str:
        """The source for reports: "none", the path, or "coco", "imagenet" or "bundled" with the file name.

        Raises:
            DataError, OSError: as ``state``; nothing is downloaded.
        """
        if self.source == BUNDLED:
            return f"{BUNDLED} ({self._file().path.name})"
        if self.is_file or self.source == "none":
            return self.source
        backbone = self._timm_backbone()
        return f"{self.source} ({timm_origin(backbone) if backbone else file_name(self._published().url)})"

    def origin(self) -> Origin:
        """Return where they came from, with the checksum of the bytes that were read.

        Raises:
            DataError, OSError: as ``title``.
        """
        if self.is_file:
            return Origin(f"{self._file().path.name}, sha256 {self._file().sha256}", self._file().path)
        return Origin("random" if self.source == "none" else self.title)

    def release(self) -> None:
        """Free the memory of the tensors; everything else that was read stays. A later ``state`` reads them again."""
        self._downloaded = None
        if self._content is not None:
            self._content = replace(self._content, state={})

    def _file(self) -> WeightsFile:
        """Return the content of the file, which is read once."""
        if self._content is None:
            self._content = read_weights_file(self.source)
        return self._content

    def _timm_backbone(self) -> str | None:
        """Return the backbone whose weights timm publishes; None for weights of torchvision."""
        backbone = architecture_of(self._arch()).backbone
        return backbone if self.source == "imagenet" and backbone.startswith(PREFIX) else None

    def _published(self) -> Any:
        """Return torchvision's entry of these weights."""
        architecture = architecture_of(self._arch())
        if self.source == "coco" and architecture.coco is None:
            raise DataError(no_coco_weights(self._arch()))
        return architecture.coco if self.source == "coco" else backbone_spec(architecture).imagenet

    def _arch(self) -> str:
        assert self.arch is not None, f"published weights {self.source} were opened without an architecture"
        return self.arch

    def _download(self) -> dict[str, Tensor]:
        """Return the published tensors, from the cache of torch or timm if they are in it."""
        if self.source == "none":
            raise DataError("weights none: there are no tensors; use coco, imagenet, bundled or a file")
        backbone = self._timm_backbone()
        if backbone:
            return fetch_timm(backbone)
        url, imagenet = self._published().url, backbone_spec(architecture_of(self._arch())).imagenet
        return fetch(url, None if imagenet is None else imagenet.url)


def read_state_dict(path: str | os.PathLike[str] | StartingWeights) -> dict[str, Tensor]:
    """Return the model's tensors of a file, on the CPU, in the file's dtypes.

    Args:
        path: .pth or .pt with a state dict, at the top level or under "model" or "state_dict"; .safetensors, with
            tensors only or a checkpoint of this project; a run folder, from which best.safetensors is used; or
            "bundled". A prefix "module." of all names (DataParallel) is removed. Or opened weights of any kind.

    Raises:
        OSError: the file does not exist or cannot be opened.
        DataError: it is corrupt, of a newer version of this project, contains other objects than tensors, or contains
            no tensors.
    """
    return dict(path.state) if isinstance(path, StartingWeights) else read_weights_file(path).state
