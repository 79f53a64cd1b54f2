"""The notebook: valid, without stored outputs, and every code cell runs."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest

ROOT = Path(__file__).resolve().parents[1]
NOTEBOOK = ROOT / "tools" / "quickstart.ipynb"
CONTENT = json.loads(NOTEBOOK.read_text(encoding="utf-8"))


def code_cells() -> list[str]:
    """The Python code of each code cell, without the commands of the notebook (``%pip``, ``!``)."""
    sources = ["".join(cell["source"]) for cell in CONTENT["cells"] if cell["cell_type"] == "code"]
    return [re.sub(r"^[%!].*$", "", source, flags=re.MULTILINE) for source in sources]


def run(cells: list[str], replacements: tuple[tuple[str, str], ...] = ()) -> dict[str, Any]:
    """Execute cells in one namespace, as a notebook does."""
    names: dict[str, Any] = {}
    for number, source in enumerate(cells):
        for written, replacement in replacements:
            source = source.replace(written, replacement)
        exec(compile(source, f"{NOTEBOOK.name}, code cell {number}", "exec"), names)
    return names


def test_the_notebook_is_valid_and_has_no_outputs() -> None:
    assert (CONTENT["nbformat"], CONTENT["nbformat_minor"]) == (4, 4)
    for cell in CONTENT["cells"]:
        assert cell["cell_type"] in ("code", "markdown")
        assert isinstance(cell["metadata"], dict)
        assert all(isinstance(line, str) for line in cell["source"])
        if cell["cell_type"] == "code":
            assert cell["outputs"] == []
            assert cell["execution_count"] is None
    for number, source in enumerate(code_cells()):
        compile(source, f"code cell {number}", "exec")


def test_only_the_first_code_cell_needs_the_network() -> None:
    first, *others = ["".join(cell["source"]) for cell in CONTENT["cells"] if cell["cell_type"] == "code"]
    assert first.startswith("%pip install")
    assert "\n" not in first
    assert not any(re.search(r"^[%!]|https?:|weights=\"(coco|imagenet)\"", source, re.MULTILINE) for source in others)


def test_the_badge_opens_this_file_and_the_address_is_the_same_everywhere() -> None:
    texts = {name: (ROOT / name).read_text(encoding="utf-8") for name in ("README.md", "tools/quickstart.ipynb")}
    for name, text in texts.items():
        assert "/blob/main/tools/quickstart.ipynb)" in text, name
    addresses = {
        address for text in texts.values() for address in re.findall(r"github(?:\.com)?/([\w-]+/detseg)", text)
    }
    assert len(addresses) == 1


@pytest.mark.slow
def test_the_notebook_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    names = run(code_cells())
    stats = names["metrics"].coco_eval["segm"].stats
    assert stats.shape == (12,)
    assert stats[1] > 0.3  # AP50
    assert len(names["prediction"]) > 0
    drawn = np.asarray(PIL.Image.open(tmp_path / "prediction.png"))
    assert drawn.shape == (*names["prediction"].size_hw, 3)
    assert (tmp_path / "model.safetensors").is_file()


def test_control_an_error_in_a_cell_is_an_error() -> None:
    with pytest.raises(NameError):
        run(["x = 1", "y = x + z"])
