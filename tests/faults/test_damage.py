"""CorruptFileError checkpoints: every one is found, set aside by name, and the one before it is used. R6 of the scorecard."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
from torch import nn

from detseg.checkpoints import tensor_file as tensor_file_module
from detseg.checkpoints.checkpoint import Position, load_checkpoint, save_checkpoint
from detseg.checkpoints.rotation import checkpoint_path, latest_checkpoint, rotate
from detseg.checkpoints.tensor_file import CorruptFileError
from detseg.errors import DataError

TRUNCATIONS, FLIPS = 50, 100


def write(folder: Path, steps: tuple[int, ...], keep: int = 2) -> None:
    for step in steps:
        torch.manual_seed(step)
        save_checkpoint(
            checkpoint_path(folder, 0),
            nn.Linear(7, 5),
            description={"width": 5},
            position=Position(step=step),
            before_replacing=lambda: rotate(folder, keep),
        )


def damages(content: bytes) -> list[tuple[str, bytes | None]]:
    """What can happen to a file, in 153 ways; None: it is gone."""
    rng = np.random.default_rng(0)
    ways: list[tuple[str, bytes | None]] = []
    for end in np.linspace(1, len(content) - 1, TRUNCATIONS).astype(int):
        ways.append((f"cut at {end}", content[:end]))
    for bit in rng.choice(8 * len(content), FLIPS, replace=False).tolist():
        flipped = bytearray(content)
        flipped[bit // 8] ^= 1 << bit % 8
        ways.append((f"bit {bit} flipped", bytes(flipped)))
    return [*ways, ("empty", b""), ("deleted", None), ("newer", newer(content))]


def newer(content: bytes) -> bytes:
    """The same as a version to come might write it: another schema, sealed."""
    end = 8 + int.from_bytes(content[:8], "little")
    header = json.loads(json.loads(content[8:end])["__metadata__"]["detseg"])
    header |= {"schema": tensor_file_module.SCHEMA + 1, "sha256": tensor_file_module.BLANK}
    again = safetensors.torch.save(safetensors.torch.load(content), metadata={"detseg": json.dumps(header)})
    return tensor_file_module.fill_checksum(again, 8 + int.from_bytes(again[:8], "little"))


def survived(folder: Path, damage: bytes | None) -> bool:
    """Whether the damage was seen, told, set aside, and the run would go on from the checkpoint before."""
    for path in folder.iterdir():
        path.unlink()
    write(folder, (1, 2))
    last = checkpoint_path(folder, 0)
    if damage is None:
        last.unlink()
    else:
        last.write_bytes(damage)
    checkpoint, lines = latest_checkpoint(folder)
    told = damage is None or (len(lines) == 1 and "set aside as last.safetensors.damaged" in lines[0])
    kept = folder / "last.safetensors.damaged"
    aside = damage is None or (kept.is_file() and kept.read_bytes() == damage)
    return told and aside and checkpoint is not None and checkpoint.position.step == 1


def test_every_damage_is_found_and_the_one_before_is_used(tmp_path: Path, tally: Any) -> None:
    write(tmp_path, (1, 2))
    ways = damages(checkpoint_path(tmp_path, 0).read_bytes())
    assert len({damage for _, damage in ways}) == TRUNCATIONS + FLIPS + 3
    missed = [name for name, damage in ways if not survived(tmp_path, damage)]
    print(f"missed: {missed}")
    tally("R6 corrupt checkpoint found, the one before used", len(ways) - len(missed), len(ways))


def test_control_without_the_seal_flipped_bits_are_missed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path, (1, 2))
    ways = damages(checkpoint_path(tmp_path, 0).read_bytes())
    monkeypatch.setattr(tensor_file_module, "checksum_matches", lambda content, end: True)
    missed = []
    for name, damage in ways:
        try:
            missed += [] if survived(tmp_path, damage) else [name]
        except (TypeError, KeyError, AttributeError):  # a flipped letter in a name, and the program stumbles
            missed.append(name)
    assert len(missed) > FLIPS / 4


def test_whole_files_are_whole(tmp_path: Path) -> None:
    write(tmp_path, (1, 2, 3), keep=3)
    assert [load_checkpoint(checkpoint_path(tmp_path, age)).position.step for age in range(3)] == [3, 2, 1]
    write(tmp_path, (4,), keep=3)
    assert [load_checkpoint(checkpoint_path(tmp_path, age)).position.step for age in range(3)] == [4, 3, 2]
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "last-1.safetensors", "last-2.safetensors", "last.safetensors",
    ]  # fmt: skip
    assert latest_checkpoint(tmp_path)[1] == []


def test_a_run_without_any_checkpoint_begins_anew_and_one_with_damaged_ones_only_does_not(tmp_path: Path) -> None:
    assert latest_checkpoint(tmp_path) == (None, [])
    write(tmp_path, (1,))
    checkpoint_path(tmp_path, 0).write_bytes(b"torn")
    with pytest.raises(DataError, match=r"no checkpoint of this run can be read \(last.safetensors.damaged\)"):
        latest_checkpoint(tmp_path)
    with pytest.raises(DataError, match="no checkpoint of this run can be read"):
        latest_checkpoint(tmp_path)  # and it is not forgotten


def test_equal_states_give_equal_files(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        write(tmp_path / name, (1,))
    assert checkpoint_path(tmp_path / "a", 0).read_bytes() == checkpoint_path(tmp_path / "b", 0).read_bytes()


def test_a_seal_that_was_taken_off_is_damage(tmp_path: Path) -> None:
    write(tmp_path, (1,))
    content = checkpoint_path(tmp_path, 0).read_bytes()
    metadata = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])["__metadata__"]
    header = {name: value for name, value in json.loads(metadata["detseg"]).items() if name != "sha256"}
    text = safetensors.torch.save(safetensors.torch.load(content), metadata={"detseg": json.dumps(header)})
    checkpoint_path(tmp_path, 0).write_bytes(text)
    with pytest.raises(CorruptFileError, match="not what was written"):
        load_checkpoint(checkpoint_path(tmp_path, 0))


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
