"""Store features of frozen layers: in memory, or in a folder that is shared by runs."""

from __future__ import annotations

import errno
import hashlib
import json
from collections.abc import Callable
from pathlib import Path

import safetensors
import torch
from torch import Tensor, nn

from detseg.checkpoints.tensor_file import CorruptFileError, read_tensor_file, write_tensor_file
from detseg.datasets.packed_masks import PackedTarget
from detseg.datasets.views import ViewKey
from detseg.errors import DataError
from detseg.models import Model
from detseg.models.frozen_features import FrozenFeatures

Target = dict[str, Tensor]
Sample = tuple[FrozenFeatures, Target]


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
        self._features: dict[ViewKey, FrozenFeatures | Path] = {}
        self._targets: dict[ViewKey, PackedTarget] = {}

    def __len__(self) -> int:
        return len(self._features)

    @property
    def keys(self) -> frozenset[ViewKey]:
        """Keys of the stored views."""
        return frozenset(self._features)

    def add(self, key: ViewKey, image: Tensor, target: Target, compute: Callable[[], FrozenFeatures] | None) -> None:
        """Add the features of ``image``: from a valid file in the folder, else computed, unless over the limit.

        Without ``compute``, only features from the folder are added.

        Raises:
            DataError: a number is too large for ``dtype``.
        """
        path = None if self.folder is None else self.folder / f"{image_checksum(image)}.safetensors"
        stored: FrozenFeatures | Path | None = path if path is not None and self._reuse_file(path) else None
        if stored is None and compute is not None:
            stored = self._store(self.rounded(compute()), path)
        if stored is not None:
            self._features[key], self._targets[key] = stored, PackedTarget.pack(target)

    def _reuse_file(self, path: Path) -> bool:
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

    def _store(self, features: FrozenFeatures, path: Path | None) -> FrozenFeatures | Path | None:
        """The features, or the path of the file that was written; None if there is no space."""
        over_limit = self.full or self._used_bytes + features.nbytes > self.limit
        if over_limit or (path is not None and not _write_if_space(path, features)):
            self.full = True
            return None
        self._used_bytes += features.nbytes
        self.nbytes += features.nbytes
        return path or features

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
        """
        features = self._features[key]
        if isinstance(features, Path):
            features = _read(features)
        return features, self._targets[key].unpack()


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
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        return False
    return True


def _read(path: Path) -> FrozenFeatures:
    """Memory-map a file that was checked at the start of the run."""
    if not path.is_file():
        raise FileNotFoundError(
            f"{path}: cached features of this run were removed; continue with --resume, which computes them again"
        )
    with safetensors.safe_open(path, framework="pt") as file:
        header = json.loads(file.metadata()["detseg"])["features"]
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  (not a dict)
    return FrozenFeatures.from_tensors(header["level"], tuple(header["size_hw"]), tensors)


def _folder_bytes(folder: Path) -> int:
    """Bytes of all feature files in ``folder``."""
    if folder.exists() and not folder.is_dir():
        raise DataError(f"{folder} is a file; --cache-dir must be a folder")
    return sum(path.stat().st_size for path in folder.glob("*/*.safetensors"))
