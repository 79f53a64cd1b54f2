"""Where features of frozen parts are kept: in memory, or in a folder that runs share."""

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
from detseg.models.features import FrozenFeatures

Target = dict[str, Tensor]
Sample = tuple[FrozenFeatures, Target]


class FeatureStore:
    """Features and targets by their :class:`ViewKey`, as many as fit below a limit; none is ever dropped for another.

    In a folder each has a file of its own, named by what it was computed from: the frozen weights and settings
    (``source``), and the very pixels that the network was given. So nothing in it can be out of date, two runs can use
    it at once (a file is put in its place whole, and both would write the same), and a corrupt one is written anew.

    Attributes:
        nbytes: features kept so far.
        full: whether one was left out for the limit, or for a full disk; from then on all are.
        found: files that were there already.
        corrupt: files that were not as they were written.
    """

    def __init__(self, *, dtype: torch.dtype, limit: int, source: str = "", folder: Path | None = None) -> None:
        """Begin with nothing.

        Args:
            dtype: of the maps; float16, or float32.
            limit: bytes of features that are kept at most; in a folder with those of other runs that are in it.
            source: of :func:`source_of`.
            folder: None for memory.
        """
        self.dtype, self.limit, self.source = dtype, limit, source
        self.folder = None if folder is None else folder / source[:16]
        self.nbytes = 0
        self.full = False
        self.found = self.corrupt = 0
        self._taken = 0 if folder is None else _size_of(folder)
        self._features: dict[ViewKey, FrozenFeatures | Path] = {}
        self._targets: dict[ViewKey, PackedTarget] = {}

    def __len__(self) -> int:
        return len(self._features)

    @property
    def places(self) -> frozenset[ViewKey]:
        """What is kept."""
        return frozenset(self._features)

    def keep(self, place: ViewKey, image: Tensor, target: Target, compute: Callable[[], FrozenFeatures] | None) -> None:
        """Keep the features of ``image``: those in the folder if a whole file of them is there, else computed ones,
        unless they are over the limit. Without ``compute`` only those that are there.

        Raises:
            DataError: a number is too large for ``dtype``.
        """
        path = None if self.folder is None else self.folder / f"{key_of(image)}.safetensors"
        kept: FrozenFeatures | Path | None = path if path is not None and self._found(path) else None
        if kept is None and compute is not None:
            kept = self._taken_in(self.rounded(compute()), path)
        if kept is not None:
            self._features[place], self._targets[place] = kept, PackedTarget.of(target)

    def _found(self, path: Path) -> bool:
        """Whether there is a whole file."""
        if not path.is_file():
            return False
        try:
            _, tensors = read_tensor_file(path)
        except CorruptFileError:
            self.corrupt += 1
            return False
        self.nbytes += sum(tensor.nbytes for tensor in tensors.values())
        self.found += 1
        return True

    def _taken_in(self, features: FrozenFeatures, path: Path | None) -> FrozenFeatures | Path | None:
        """The features, or the file that now holds them; None where there is no room."""
        no_room = self.full or self._taken + features.nbytes > self.limit
        if no_room or (path is not None and not _written(path, features)):
            self.full = True
            return None
        self._taken += features.nbytes
        self.nbytes += features.nbytes
        return path or features

    def rounded(self, features: FrozenFeatures) -> FrozenFeatures:
        """``features`` on the CPU as they come back from here; what is not kept is rounded too, so that the limit
        changes no number.

        Raises:
            DataError: a number is too large for ``dtype``.
        """
        features.check_fits(self.dtype)
        return features.to("cpu").with_maps(self.dtype)

    def sample(self, place: ViewKey) -> Sample:
        """What is kept for ``place``.

        Raises:
            OSError: its file was removed meanwhile.
        """
        features = self._features[place]
        if isinstance(features, Path):
            features = _read(features)
        return features, self._targets[place].target()


def key_of(image: Tensor) -> str:
    """The sha256 of an image's shape and pixels."""
    digest = hashlib.sha256(f"{tuple(image.shape)} {image.dtype}".encode())
    digest.update(image.contiguous().numpy().data)
    return digest.hexdigest()


def source_of(model: Model, level: str, dtype: torch.dtype, device: torch.device) -> str:
    """The sha256 of all that features depend on but the image: frozen weights, architecture, libraries, device."""
    described = model.description.to_dict()
    described["class_map"] = None  # of the heads
    versions = f"torch {torch.__version__} on {device.type}"
    header = {"model": described, "frozen": model.frozen_modules, "level": level, "dtype": str(dtype), "by": versions}
    digest = hashlib.sha256(json.dumps(header, sort_keys=True).encode())
    for module in model.frozen_modules:
        _add(digest, module, model.get_submodule(module))
    return digest.hexdigest()


def _add(digest: hashlib._Hash, name: str, module: nn.Module) -> None:
    for key, tensor in module.state_dict().items():
        digest.update(f"{name}.{key} {tuple(tensor.shape)}".encode())
        digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)


def _written(path: Path, features: FrozenFeatures) -> bool:
    """Whether there was room for the file of ``features``."""
    header = {"level": features.level, "size_hw": features.size_hw}
    try:
        write_tensor_file(path, {"features": header}, features.tensors())
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        return False
    return True


def _read(path: Path) -> FrozenFeatures:
    """A file that was looked through when the run began, now memory-mapped."""
    if not path.is_file():
        raise FileNotFoundError(
            f"{path}: features of this run were removed; go on with --resume, which makes them anew"
        )
    with safetensors.safe_open(path, framework="pt") as file:
        header = json.loads(file.metadata()["detseg"])["features"]
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  (it is no dict)
    return FrozenFeatures.from_tensors(header["level"], tuple(header["size_hw"]), tensors)


def _size_of(folder: Path) -> int:
    """Bytes of all files of features in ``folder``."""
    if folder.exists() and not folder.is_dir():
        raise DataError(f"{folder} is a file; --cache-dir takes a folder")
    return sum(path.stat().st_size for path in folder.glob("*/*.safetensors"))
