"""Malicious files: some contain code that an unsafe loader executes, some have false or harmful headers."""

from __future__ import annotations

import functools
import gzip
import io
import json
import math
import os
import pickle
import tarfile
import warnings
import zipfile
import zlib
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.torch
import torch
import yaml

from detseg.checkpoints.tensor_file import SCHEMA
from detseg.classes import ClassMap
from detseg.models import build_model, describe
from detseg.runtime.checksum import BLANK, fill_checksum

ARCH = "mobilenet_v3_small"
DEEP, MANY = "[" * 100_000 + "]" * 100_000, list(range(200_000))


class Call:
    """An object whose pickle is a function call, so that unpickling calls the function."""

    def __init__(self, function: Any, *args: Any) -> None:
        self.function, self.args = function, args

    def __reduce__(self) -> tuple[Any, tuple[Any, ...]]:
        return self.function, self.args

    def __call__(self) -> None:
        """Never called, but pickle requires a callable."""


class Script(torch.nn.Module):
    """TorchScript that writes a file when it is loaded."""

    def __init__(self, path: str) -> None:
        super().__init__()
        self.path = path

    @torch.jit.export
    def __getstate__(self) -> tuple[str, bool]:
        return self.path, self.training

    @torch.jit.export
    def __setstate__(self, state: tuple[str, bool]) -> None:
        self.path, self.training = state
        torch.save(1, state[0])


def touch(canary: str) -> Call:
    return Call(os.system, f"touch {canary}")


def writing(canary: str) -> str:
    return f"open({canary!r}, 'w').close()"


def written(save: Callable[[io.BytesIO], object]) -> bytes:
    file = io.BytesIO()
    save(file)
    return file.getvalue()


def saved(content: Any, *, zipped: bool = True) -> bytes:
    return written(lambda file: torch.save(content, file, _use_new_zipfile_serialization=zipped))


def archive(pieces: list[bytes], kind: int = zipfile.ZIP_STORED) -> bytes:
    """An archive in torch's format with ``pieces`` as its pickle."""

    def save(file: io.BytesIO) -> None:
        with zipfile.ZipFile(file, "w", kind, compresslevel=1) as members:
            members.writestr("archive/version", "3\n")
            with members.open("archive/data.pkl", "w") as member:
                member.writelines(pieces)

    return written(save)


def versions(canary: str) -> bytes:
    """A state dict with a call in place of the metadata with module versions."""
    state = OrderedDict({"conv.weight": torch.ones(2, 2)})
    state._metadata = touch(canary)  # type: ignore[attr-defined]
    return saved(state)


def setstate(canary: str) -> bytes:
    """An OrderedDict, which is an allowed type, that gets a ``__setstate__`` and then a state."""
    command = f"touch {canary}".encode()
    name, text = (b"X" + len(value).to_bytes(4, "little") + value for value in (b"__setstate__", command))
    return archive([b"\x80\x02ccollections\nOrderedDict\n)R}", name, b"cposix\nsystem\nsb", text, b"b."])


def hub(canary: str) -> bytes:
    """A torch.hub model whose code is in a folder."""
    folder = Path(f"{canary}.hub")
    folder.mkdir()
    (folder / "hubconf.py").write_text(f"def net():\n    {writing(canary)}\n")
    return saved(Call(functools.partial(torch.hub.load, str(folder), "net", source="local")))


def script(canary: str) -> bytes:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch.jit is deprecated
        return bytes(torch.jit.script(Script(canary)).save_to_buffer())


def tar_archive(canary: str) -> bytes:
    """The tar archive format of the first torch versions."""
    content = pickle.dumps(touch(canary))
    member = tarfile.TarInfo("storages")
    member.size = len(content)

    def save(file: io.BytesIO) -> None:
        with tarfile.open(fileobj=file, mode="w") as members:
            members.addfile(member, io.BytesIO(content))

    return written(save)


def unpickle(path: Path, unpack: Callable[[bytes], bytes] = bytes) -> Any:
    return pickle.loads(unpack(path.read_bytes()))


def load_array(path: Path) -> Any:
    loaded = np.load(path, allow_pickle=True)
    return loaded["arr_0"] if hasattr(loaded, "files") else loaded


def load_torch(path: Path) -> Any:
    return torch.load(path, weights_only=False)


CODE: dict[str, tuple[Callable[[str], bytes], Callable[[Path], Any]]] = {
    "protocol-0.pt": (lambda c: pickle.dumps(touch(c), 0), unpickle),
    "protocol-2.pth": (lambda c: pickle.dumps(Call(eval, writing(c)), 2), unpickle),
    "protocol-4.bin": (lambda c: pickle.dumps(Call(Call(getattr, Call(__import__, "os"), "mkdir"), c), 4), unpickle),
    "protocol-5.pkl": (lambda c: pickle.dumps(Call(exec, writing(c)), 5), unpickle),
    "beside-tensors.pth": (lambda c: saved({"model": {"a": torch.ones(1)}, "args": touch(c)}), load_torch),
    "versions.pth": (versions, load_torch),
    "optimizer.pth.tar": (lambda c: saved({"optimizer": {"state": [touch(c)]}}, zipped=False), load_torch),
    "setstate.pt": (setstate, load_torch),
    "storage.pt": (lambda c: saved(Call(torch.storage._load_from_bytes, saved(touch(c)))), load_torch),
    "hub.pt": (hub, load_torch),
    "script.pt": (script, torch.jit.load),
    "tape.tar": (tar_archive, load_torch),
    "array.npy": (lambda c: written(lambda file: np.save(file, np.array([touch(c)], object))), load_array),
    "arrays.npz": (lambda c: written(lambda file: np.savez(file, np.array([touch(c)], object))), load_array),
    "joblib.z": (lambda c: zlib.compress(pickle.dumps(touch(c))), lambda path: unpickle(path, zlib.decompress)),
    "pickle.gz": (lambda c: gzip.compress(pickle.dumps(touch(c))), lambda path: unpickle(path, gzip.decompress)),
    "config.yaml": (
        lambda c: f"a: !!python/object/apply:os.mkdir [{c}]".encode(),
        lambda path: yaml.unsafe_load(path.read_text()),
    ),
}
"""File name -> function that creates the file for the path that its code touches, and an unsafe loader that runs it."""


@functools.cache
def model() -> Any:
    return build_model(describe(ARCH, ClassMap(("dark", "light")), weights="none", image_size=40))


def model_tensors() -> dict[str, torch.Tensor]:
    return {f"model.{name}": tensor for name, tensor in model().state_dict().items()}


def project_checkpoint(description: Any = None, tensors: dict[str, torch.Tensor] | None = None, **header: Any) -> bytes:
    """A checkpoint of this project with a correct checksum, changed by the arguments."""
    valid = {"schema": SCHEMA, "position": {}, "metrics": {}, "channels_last": False, "versions": {}, "totals": [{}]}
    model_description = model().description.to_dict() | (description or {})
    text = json.dumps(valid | {"model": model_description} | header | {"sha256": BLANK})
    content = safetensors.torch.save(tensors or model_tensors(), {"detseg": text})
    return fill_checksum(content, 8 + int.from_bytes(content[:8], "little"))


def with_project_header(text: str) -> bytes:
    """A safetensors file with ``text`` as this project's header."""
    return safetensors.torch.save(ONE, {"detseg": text})


def with_header(header: str | bytes, content: bytes = bytes(4)) -> bytes:
    """A safetensors file with ``header`` as its complete header."""
    text = header.encode() if isinstance(header, str) else header
    return len(text).to_bytes(8, "little") + text + content


def tensor_entry(dtype: str = "F32", shape: str = "1", end: int = 4) -> str:
    return f'{{"dtype": "{dtype}", "shape": [{shape}], "data_offsets": [0, {end}]}}'


ONE = {"model.weight": torch.ones(1)}
FALSE_HEADERS: dict[str, Callable[[], bytes]] = {
    "bomb.pth": lambda: archive([bytes(1 << 20)] * 512, zipfile.ZIP_DEFLATED),
    "endless.safetensors": lambda: (1 << 63).to_bytes(8, "little") + b"{}",
    "overlap.safetensors": lambda: with_header(f'{{"a": {tensor_entry()}, "b": {tensor_entry()}}}'),
    "deep.safetensors": lambda: with_header(f'{{"a": {DEEP}}}'),
    "deep-inside.safetensors": lambda: with_project_header(DEEP),
    "unknown.safetensors": lambda: project_checkpoint({"arch": "evil"}, ONE),
    "classes.safetensors": lambda: project_checkpoint(
        {"class_map": {"names": list(map(str, MANY)), "category_ids": MANY}}, ONE
    ),
    "nan.safetensors": lambda: project_checkpoint({"norm_eps": math.nan}),
}
"""Files without code: loading them would exhaust the memory, never end, or build a model with meaningless results."""


def make(folder: Path) -> dict[str, Path]:
    """Write all files; return their paths by name. The code in a file touches "<name>.touched": see :func:`touched`."""
    contents = {name: write(f"{folder / name}.touched") for name, (write, _) in CODE.items()}
    contents |= {name: write() for name, write in FALSE_HEADERS.items()}
    for name, content in contents.items():
        (folder / name).write_bytes(content)
    return {name: folder / name for name in contents}


def touched(folder: Path) -> set[str]:
    """Names of the files whose code ran."""
    return {path.name.removesuffix(".touched") for path in folder.glob("*.touched")}
