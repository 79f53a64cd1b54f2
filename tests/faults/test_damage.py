"""Corrupt checkpoints: each is detected and renamed, and the previous one is used. R6 of the scorecard."""

from __future__ import annotations

import errno
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
from torch import nn

from detseg.checkpoints import tensor_file as tensor_file_module
from detseg.checkpoints.checkpoint import Position, load_checkpoint, save_checkpoint
from detseg.checkpoints.rotation import latest_checkpoint, rotate
from detseg.checkpoints.tensor_file import CorruptFileError, read_tensor_file
from detseg.errors import DataError
from detseg.models.weights import safetensors_file
from detseg.runtime.run_folder import RunFolder

TRUNCATIONS, FLIPS = 50, 100


def write(folder: Path, steps: tuple[int, ...], keep: int = 2) -> None:
    for step in steps:
        torch.manual_seed(step)
        save_checkpoint(
            RunFolder(folder).checkpoint(0),
            nn.Linear(7, 5),
            description={"width": 5},
            position=Position(step=step),
            before_replacing=lambda: rotate(folder, keep),
        )


def corruptions(content: bytes) -> list[tuple[str, bytes | None]]:
    """152 corruptions of a file, by name; None: the file is deleted."""
    rng = np.random.default_rng(0)
    corrupted: list[tuple[str, bytes | None]] = []
    for end in np.linspace(1, len(content) - 1, TRUNCATIONS).astype(int):
        corrupted.append((f"truncated at {end}", content[:end]))
    for bit in rng.choice(8 * len(content), FLIPS, replace=False).tolist():
        flipped = bytearray(content)
        flipped[bit // 8] ^= 1 << bit % 8
        corrupted.append((f"bit {bit} flipped", bytes(flipped)))
    return [*corrupted, ("empty", b""), ("deleted", None)]


def with_newer_schema(content: bytes) -> bytes:
    """The same tensors with the schema of a future version and a correct checksum."""
    end = 8 + int.from_bytes(content[:8], "little")
    header = json.loads(json.loads(content[8:end])["__metadata__"]["detseg"])
    header |= {"schema": tensor_file_module.SCHEMA + 1, "sha256": tensor_file_module.BLANK}
    again = safetensors.torch.save(safetensors.torch.load(content), metadata={"detseg": json.dumps(header)})
    return tensor_file_module.fill_checksum(again, 8 + int.from_bytes(again[:8], "little"))


def survived(folder: Path, corrupted: bytes | None) -> bool:
    """Whether the corruption is detected and reported, the file renamed, and the previous checkpoint loaded."""
    for path in folder.iterdir():
        path.unlink()
    write(folder, (1, 2))
    last = RunFolder(folder).checkpoint(0)
    if corrupted is None:
        last.unlink()
    else:
        last.write_bytes(corrupted)
    checkpoint, lines = latest_checkpoint(folder)
    reported = corrupted is None or (len(lines) == 1 and "renamed to last.safetensors.damaged" in lines[0])
    renamed_file = folder / "last.safetensors.damaged"
    renamed = corrupted is None or (renamed_file.is_file() and renamed_file.read_bytes() == corrupted)
    return reported and renamed and checkpoint is not None and checkpoint.position.step == 1


def test_every_corruption_is_detected_and_the_previous_checkpoint_is_used(tmp_path: Path, tally: Any) -> None:
    write(tmp_path, (1, 2))
    cases = corruptions(RunFolder(tmp_path).checkpoint(0).read_bytes())
    assert len({corrupted for _, corrupted in cases}) == TRUNCATIONS + FLIPS + 2
    missed = [name for name, corrupted in cases if not survived(tmp_path, corrupted)]
    print(f"missed: {missed}")
    tally("R6 corrupt checkpoint detected, the previous one used", len(cases) - len(missed), len(cases))


def test_control_without_the_checksum_flipped_bits_are_missed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path, (1, 2))
    cases = corruptions(RunFolder(tmp_path).checkpoint(0).read_bytes())
    monkeypatch.setattr(safetensors_file, "checksum_matches", lambda content, end: True)
    missed = []
    for name, corrupted in cases:
        try:
            missed += [] if survived(tmp_path, corrupted) else [name]
        except (TypeError, KeyError, AttributeError, DataError):  # a flipped character in a name raises one of these
            missed.append(name)
    assert len(missed) > FLIPS / 4


def test_rotated_files_are_valid(tmp_path: Path) -> None:
    write(tmp_path, (1, 2, 3), keep=3)
    assert [load_checkpoint(RunFolder(tmp_path).checkpoint(age)).position.step for age in range(3)] == [3, 2, 1]
    write(tmp_path, (4,), keep=3)
    assert [load_checkpoint(RunFolder(tmp_path).checkpoint(age)).position.step for age in range(3)] == [4, 3, 2]
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "last-1.safetensors", "last-2.safetensors", "last.safetensors",
    ]  # fmt: skip
    assert latest_checkpoint(tmp_path)[1] == []


def test_a_run_without_checkpoints_starts_over_but_one_with_only_corrupt_checkpoints_fails(tmp_path: Path) -> None:
    assert latest_checkpoint(tmp_path) == (None, [])
    write(tmp_path, (1,))
    RunFolder(tmp_path).checkpoint(0).write_bytes(b"truncated")
    with pytest.raises(
        DataError,
        match=r"read \(last.safetensors.damaged: corrupt, or not .*\); restore a copy$",
    ):
        latest_checkpoint(tmp_path)
    with pytest.raises(DataError, match="no checkpoint of this run can be read"):
        latest_checkpoint(tmp_path)  # also the second time
    RunFolder(tmp_path).best.write_bytes(b"")
    with pytest.raises(DataError, match=r"restore a copy, or start a new run with --weights .*best\.safetensors"):
        latest_checkpoint(tmp_path)


def renaming_everything(folder: Path) -> list[str]:
    """The rule of before: whatever cannot be read is renamed."""
    for path in (RunFolder(folder).checkpoint(age) for age in range(2)):
        try:
            load_checkpoint(path)
        except (DataError, OSError):
            path.replace(path.with_name(path.name + ".damaged"))
        else:
            break
    return sorted(path.name for path in folder.iterdir())


def make_unreadable(kind: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Make the newest checkpoint unreadable, but not corrupt; returns what a message must contain."""
    last, real = RunFolder(folder).last, Path.read_bytes
    if kind == "newer schema":
        last.write_bytes(with_newer_schema(last.read_bytes()))
        return f"{last}: unknown schema 4 (this version supports up to 3); upgrade detseg"
    if kind == "other content":
        header, tensors = read_tensor_file(last)
        del header["totals"]
        tensor_file_module.write_tensor_file(last, header, tensors)
        return f"{last}: corrupt or of an unexpected format"
    number = {"permission denied": errno.EACCES, "I/O error": errno.EIO}[kind]

    def read_bytes(path: Path) -> bytes:
        if path == last:
            raise OSError(number, os.strerror(number))
        return real(path)

    monkeypatch.setattr(Path, "read_bytes", read_bytes)
    return f"{os.strerror(number)}: '{last}'"


UNREADABLE = ("newer schema", "other content", "permission denied", "I/O error")


@pytest.mark.parametrize("kind", UNREADABLE)
def test_what_cannot_be_read_is_not_corrupt(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tally: Any
) -> None:
    write(tmp_path, (1, 2))
    names = sorted(path.name for path in tmp_path.iterdir())
    expected = make_unreadable(kind, tmp_path, monkeypatch)
    with pytest.raises((DataError, OSError)) as caught:
        latest_checkpoint(tmp_path)
    assert expected in str(caught.value)
    assert "It is not corrupt and was left as it is; no older one is used" in str(caught.value)
    kept = sorted(path.name for path in tmp_path.iterdir()) == names
    assert renaming_everything(tmp_path) != names, "control"
    tally("R6 checkpoint that cannot be read, but is not corrupt: named and left alone", int(kept), 1)


def test_every_bit_of_a_header_belongs_to_the_checksum(tmp_path: Path) -> None:
    write(tmp_path, (1,))
    path = RunFolder(tmp_path).last
    content = path.read_bytes()
    end = safetensors_file.header_end(content)
    for bit in range(0, 8 * end, 3):
        flipped = bytearray(content)
        flipped[bit // 8] ^= 1 << bit % 8
        with pytest.raises(CorruptFileError):
            safetensors_file.parse_safetensors(bytes(flipped), path)


def test_equal_states_give_equal_files(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        write(tmp_path / name, (1,))
    assert RunFolder(tmp_path / "a").checkpoint(0).read_bytes() == RunFolder(tmp_path / "b").checkpoint(0).read_bytes()


def test_a_file_without_its_checksum_is_corrupt(tmp_path: Path) -> None:
    write(tmp_path, (1,))
    content = RunFolder(tmp_path).checkpoint(0).read_bytes()
    metadata = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])["__metadata__"]
    header = {name: value for name, value in json.loads(metadata["detseg"]).items() if name != "sha256"}
    text = safetensors.torch.save(safetensors.torch.load(content), metadata={"detseg": json.dumps(header)})
    RunFolder(tmp_path).checkpoint(0).write_bytes(text)
    with pytest.raises(CorruptFileError, match="its checksum does not match"):
        load_checkpoint(RunFolder(tmp_path).checkpoint(0))


def test_a_file_of_the_first_schema_is_read(tmp_path: Path) -> None:
    model = nn.Linear(2, 2)
    header = {
        "schema": 1, "model": {}, "position": {"epoch": 3, "step": 30, "micro_batches": 0, "best": 0.5,
        "best_epoch": 1, "waited": 1}, "metrics": {}, "channels_last": False, "versions": {"torch": "2.10"},
    }  # fmt: skip
    tensors = {f"model.{name}": tensor for name, tensor in model.state_dict().items()}
    safetensors.torch.save_file(tensors, tmp_path / "old.safetensors", metadata={"detseg": json.dumps(header)})
    checkpoint = load_checkpoint(tmp_path / "old.safetensors")
    assert checkpoint.position == Position(epoch=3, step=30, best=0.5, best_epoch=1, epochs_without_improvement=1)
    assert torch.equal(checkpoint.weights["weight"], model.weight)
