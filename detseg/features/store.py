"""Store features of frozen layers: in memory, or in a folder that is shared by runs."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn

from detseg.checkpoints.tensor_file import CorruptFileError, read_again, read_tensor_file, write_tensor_file
from detseg.datasets.packed_masks import PackedTarget
from detseg.datasets.views import ViewKey
from detseg.errors import DataError
from detseg.models import Model
from detseg.models.frozen_features import FrozenFeatures
from detseg.runtime.files import FULL, remove_temporary

Target = dict[str, Tensor]
Sample = tuple[FrozenFeatures, Target]

ABANDONED = 3600.0
"""Seconds after which a temporary file in a folder of features belongs to nobody: writing one takes less than one."""


class FeatureStore:
    """Features and targets by :class:`ViewKey`, up to a memory limit; nothing is ever evicted.

    In a folder, the features of each image are one file. Its name is a checksum of what the features depend on: the
    frozen weights and settings (``source``), and the input pixels of the network. So a file can never be out of date,
    two runs can use the folder at the same time (files are written atomically, and both would write the same content),
    and a corrupt file is written again.

    Attributes:
        nbytes: bytes of the features stored so far.
        full: whether features were not stored because of the limit or a full disk; after that nothing more is stored.
        reused: number of files that existed already.
        corrupt: number of files whose checksum did not match.
    """

    def __init__(self, *, dtype: torch.dtype, limit: int, source: str = "", folder: Path | None = None) -> None:
        """Create an empty store.

        Args:
            dtype: dtype of the feature maps; float16 or float32.
            limit: maximum bytes of features; in a folder, including those of other runs.
            source: checksum from :func:`source_checksum`.
            folder: None to store in memory.
        """
        self.dtype, self.limit, self.source = dtype, limit, source
        self.folder = None if folder is None else folder / source[:16]
        self.nbytes = 0
        self.full = False
        self.reused = self.corrupt = 0
        self._used_bytes = 0 if folder is None else _folder_bytes(folder)
        for part in [] if folder is None else folder.glob("*/"):
            remove_temporary(part, older_than=time.time() - ABANDONED)  # other runs may write into it at this moment
        self._features: dict[ViewKey, FrozenFeatures] = {}  # without a folder
        self._paths: dict[ViewKey, Path] = {}  # in a folder
        self._targets: dict[ViewKey, PackedTarget] = {}

    def __len__(self) -> int:
        return len(self._targets)

    @property
    def keys(self) -> frozenset[ViewKey]:
        """Keys of the stored views."""
        return frozenset(self._targets)

    def reuse(self, key: ViewKey, image: Tensor, target: Target) -> bool:
        """Add the features of ``image`` from the folder; returns whether there is a valid file of them."""
        return self.folder is not None and self._reuse(key, _path_of(image, self.folder), target)

    def add(self, key: ViewKey, image: Tensor, target: Target, compute: Callable[[Tensor], FrozenFeatures]) -> None:
        """Add the features of ``image``: from a valid file in the folder, else computed, unless over the limit.

        Raises:
            DataError: a number is too large for ``dtype``.
        """
        if self.folder is None:
            self._add_in_memory(key, self.rounded(compute(image)), target)
            return
        path = _path_of(image, self.folder)
        if not self._reuse(key, path, target):
            self._add_file(key, path, self.rounded(compute(image)), target)

    def _reuse(self, key: ViewKey, path: Path, target: Target) -> bool:
        if not self._is_valid_file(path):
            return False
        self._paths[key], self._targets[key] = path, PackedTarget.pack(target)
        return True

    def _add_in_memory(self, key: ViewKey, features: FrozenFeatures, target: Target) -> None:
        if self._fits(features):
            self._features[key], self._targets[key] = features, PackedTarget.pack(target)
            self._count(features)

    def _add_file(self, key: ViewKey, path: Path, features: FrozenFeatures, target: Target) -> None:
        if not self._fits(features):
            return
        if _write_if_space(path, features):
            self._paths[key], self._targets[key] = path, PackedTarget.pack(target)
            self._count(features)
        else:
            self.full = True

    def _is_valid_file(self, path: Path) -> bool:
        """Whether there is a valid file, which is then counted."""
        if not path.is_file():
            return False
        try:
            _, tensors = read_tensor_file(path)
        except CorruptFileError:
            self.corrupt += 1
            return False
        self.nbytes += sum(tensor.nbytes for tensor in tensors.values())
        self.reused += 1
        return True

    def _fits(self, features: FrozenFeatures) -> bool:
        """Whether there is space for ``features`` within the limit; if not, the store is full from now on."""
        self.full = self.full or self._used_bytes + features.nbytes > self.limit
        return not self.full

    def _count(self, features: FrozenFeatures) -> None:
        self._used_bytes += features.nbytes
        self.nbytes += features.nbytes

    def rounded(self, features: FrozenFeatures) -> FrozenFeatures:
        """``features`` on the CPU, rounded as in the store; also for features that are not stored, so that the limit
        does not change the results.

        Raises:
            DataError: a number is too large for ``dtype``.
        """
        features.check_fits(self.dtype)
        return features.to("cpu").with_maps(self.dtype)

    def sample(self, key: ViewKey) -> Sample:
        """Features and target of ``key``.

        Raises:
            OSError: the file was removed in the meantime.
        DataError: it was truncated in the meantime.
        """
        features = self._features[key] if self.folder is None else _read(self._paths[key])
        return features, self._targets[key].unpack()


def _path_of(image: Tensor, folder: Path) -> Path:
    """The file with the features of ``image``."""
    return folder / f"{image_checksum(image)}.safetensors"


def image_checksum(image: Tensor) -> str:
    """The sha256 of an image's shape and pixels."""
    digest = hashlib.sha256(f"{tuple(image.shape)} {image.dtype}".encode())
    digest.update(image.contiguous().numpy().data)
    return digest.hexdigest()


def source_checksum(model: Model, level: str, dtype: torch.dtype, device: torch.device) -> str:
    """The sha256 of what features depend on besides the image: frozen weights, architecture, libraries, device."""
    description = model.description.to_dict()
    description["class_map"] = None  # only affects the heads
    versions = f"torch {torch.__version__} on {device.type}"
    header = {"model": description, "frozen": model.frozen_modules, "level": level, "dtype": str(dtype), "by": versions}
    digest = hashlib.sha256(json.dumps(header, sort_keys=True).encode())
    for module in model.frozen_modules:
        _update_digest(digest, module, model.get_submodule(module))
    return digest.hexdigest()


def _update_digest(digest: hashlib._Hash, name: str, module: nn.Module) -> None:
    for key, tensor in module.state_dict().items():
        digest.update(f"{name}.{key} {tuple(tensor.shape)}".encode())
        digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)


def _write_if_space(path: Path, features: FrozenFeatures) -> bool:
    """Write the file of ``features``; return whether there was space on the disk."""
    header = {"level": features.level, "size_hw": features.size_hw}
    try:
        write_tensor_file(path, {"features": header}, features.tensors())
    except OSError as error:
        if error.errno not in FULL:
            raise
        return False
    return True


def _read(path: Path) -> FrozenFeatures:
    """Read a file that was checked at the start of the run."""
    if not path.is_file():
        raise FileNotFoundError(
            f"{path}: cached features of this run were removed; continue with --resume, which computes them again"
        )
    try:
        content, tensors = read_again(path)
        header = content["features"]
    except (CorruptFileError, LookupError) as error:
        raise CorruptFileError(f"{error}; continue with --resume, which computes these features again") from error
    return FrozenFeatures.from_tensors(header["level"], tuple(header["size_hw"]), tensors)


def _folder_bytes(folder: Path) -> int:
    """Bytes of all feature files in ``folder``."""
    if folder.exists() and not folder.is_dir():
        raise DataError(f"{folder} is a file; --cache-dir must be a folder")
    return sum(path.stat().st_size for path in folder.glob("*/*.safetensors"))
