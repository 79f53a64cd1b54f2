"""The house as a test: imports point down, siblings do not know each other, heavy libraries stay where they belong."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "detseg"
FLOORS = {
    "annotations": 1,
    "datasets": 2,
    "models": 2,
    "metrics": 2,
    "reports": 2,
    "doctor": 2,
    "engine": 3,
    "config": 4,
    "recipes": 5,
    "predictor": 5,
    "cli": 6,
    "pretrain": 7,
}
"""Floor of each folder or file of the package; files that are not named stand on the ground floor."""
MAX_LINES = 400


def module_name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def room(module: str) -> str:
    parts = module.split(".")
    return parts[1] if len(parts) > 1 else ""


def floor(module: str) -> int:
    return FLOORS.get(room(module), 0)


def imports(source: str, *, at_load: bool = False) -> set[str]:
    """Modules that a source text imports, ``if TYPE_CHECKING`` blocks left out; ``at_load``: functions left out too."""
    tree = ast.parse(source)
    hidden = {
        id(inner)
        for node in ast.walk(tree)
        if (isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING")
        or (at_load and isinstance(node, ast.FunctionDef))
        for inner in ast.walk(node)
    }
    found = set()
    for node in ast.walk(tree):
        if id(node) in hidden:
            continue
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def violations(module: str, source: str) -> list[str]:
    """What is wrong with the arrows that leave ``module``."""
    wrong = []
    for name in imports(source):
        if not name.startswith("detseg.") or not room(name):
            continue
        up = floor(name) > floor(module)
        sibling = floor(name) == floor(module) == 2 and room(name) != room(module)
        if up or sibling:
            wrong.append(f"{module} (floor {floor(module)}) imports {name} (floor {floor(name)})")
    if any(isinstance(n, ast.ImportFrom) and n.names[0].name == "*" for n in ast.walk(ast.parse(source))):
        wrong.append(f"{module} has a star import")
    return wrong


SOURCES = sorted(PACKAGE.rglob("*.py"))


def test_control_the_check_sees_an_arrow_that_points_up() -> None:
    assert violations("detseg.models.build", "from detseg.engine.train import train_one_epoch")
    assert violations("detseg.models.build", "from detseg.metrics import CocoEvaluator")
    assert violations("detseg.boxes", "from os import *")
    assert not violations("detseg.engine.train", "from detseg.models import build_model")


@pytest.mark.parametrize("path", SOURCES, ids=module_name)
def test_imports_point_down(path: Path) -> None:
    if path == PACKAGE / "__init__.py":
        return  # the lazy front door names rooms of every floor and imports none of them
    assert violations(module_name(path), path.read_text(encoding="utf-8")) == []


def test_no_circles() -> None:
    known = {module_name(path) for path in SOURCES}
    graph = {module_name(path): imports(path.read_text(encoding="utf-8"), at_load=True) & known for path in SOURCES}
    graph["detseg"] = set()
    done: set[str] = set()

    def walk(module: str, above: tuple[str, ...]) -> None:
        assert module not in above, f"circle: {' -> '.join((*above, module))}"
        if module not in done:
            for name in graph[module]:
                walk(name, (*above, module))
            done.add(module)

    for module in graph:
        walk(module, ())


@pytest.mark.parametrize("path", SOURCES, ids=module_name)
def test_files_are_short(path: Path) -> None:
    assert len(path.read_text(encoding="utf-8").splitlines()) <= MAX_LINES


@pytest.mark.parametrize(
    ("library", "homes"),
    [("albumentations", {"detseg.datasets.augment"}), ("hotcoco", {"detseg.metrics"}), ("msgspec", {"detseg"})],
)
def test_a_library_has_one_home(library: str, homes: set[str]) -> None:
    for path in SOURCES:
        names = imports(path.read_text(encoding="utf-8"))
        if any(name.split(".")[0] == library for name in names):
            assert any(module_name(path).startswith(home) for home in homes), f"{path} imports {library}"


LIGHT = [
    module_name(path)
    for path in SOURCES
    if floor(module_name(path)) <= 1 or room(module_name(path)) in ("config", "cli", "doctor", "reports")
]


def test_light_floors_load_no_torch() -> None:
    code = f"import importlib, sys\nfor name in {LIGHT}: importlib.import_module(name)\nprint('torch' in sys.modules)"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "False"


def test_control_the_engine_does_load_torch() -> None:
    code = "import sys, detseg.engine; print('torch' in sys.modules)"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "True"


def test_top_level_names() -> None:
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True)
    if listed.returncode != 0:
        pytest.skip("not a git checkout")
    names = {line.split("/")[0] for line in listed.stdout.splitlines()}
    allowed = {"pyproject.toml", "detseg", "tools", "tests", "data", "README.md", "LICENSE", "CHANGELOG.md"}
    assert {name for name in names if not name.startswith(".")} <= allowed


def test_nothing_reads_pickle() -> None:
    for path in SOURCES:
        text = path.read_text(encoding="utf-8")
        for forbidden in ("weights_only=False", "pickle.load", "allow_pickle=True", "import joblib"):
            assert forbidden not in text, f"{path}: {forbidden}"
