"""Structure: imports point down, siblings do not import each other, heavy libraries have one home, files are short."""

from __future__ import annotations

import ast
import re
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
    "export": 3,
    "checkpoints": 4,
    "features": 5,
    "inference": 5,
    "training": 6,
    "serving": 6,
    "recipes": 7,
    "benchmarks": 8,
    "cli": 9,
    "__main__": 10,
}
"""Floor of each folder or file of the package; what is not named stands on floor 0."""

FORMATS = "detseg.annotations.formats"
MAX_LINES = 400
MAX_FUNCTION_LINES = 80


def module_name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def room(module: str) -> str:
    parts = module.split(".")
    return parts[1] if len(parts) > 1 else ""


def floor(module: str) -> int:
    return FLOORS.get(room(module), 0)


def imports(source: str) -> set[str]:
    """Modules that a source text imports, inside functions too; ``if TYPE_CHECKING`` blocks are left out."""
    tree = ast.parse(source)
    hidden = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"
        for inner in ast.walk(node)
    }
    names = set()
    for node in ast.walk(tree):
        if id(node) in hidden:
            continue
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def is_forbidden(module: str, name: str) -> bool:
    """Whether the import of ``name`` in ``module`` points up, or to a sibling that must not be known."""
    if floor(name) > floor(module):
        return True
    if floor(name) == floor(module) >= 2 and room(name) != room(module):
        return True
    if room(module) == room(name) == "recipes":
        return module != name
    if module.startswith(f"{FORMATS}.") and name.startswith(f"{FORMATS}."):
        own, other = module.split(".")[3], name.split(".")[3]
        return other not in (own, "shared", "format") and own != "all_formats"
    return False


def violations(module: str, source: str) -> list[str]:
    """What is wrong with the imports of ``module``."""
    wrong = [
        f"{module} (floor {floor(module)}) imports {name} (floor {floor(name)})"
        for name in sorted(imports(source))
        if name.startswith("detseg.") and is_forbidden(module, name)
    ]
    if any(isinstance(n, ast.ImportFrom) and n.names[0].name == "*" for n in ast.walk(ast.parse(source))):
        wrong.append(f"{module} has a star import")
    return wrong


SOURCES = sorted(PACKAGE.rglob("*.py"))


def test_control_the_check_sees_an_arrow_that_points_up() -> None:
    assert violations("detseg.models.build", "from detseg.engine.train import train_one_epoch")
    assert violations("detseg.models.build", "from detseg.metrics import CocoEvaluator")
    assert violations("detseg.boxes", "from os import *")
    assert violations("detseg.inference.predictor", "from detseg.features.store import FeatureStore"), "a sibling"
    assert violations("detseg.recipes.train", "from detseg.recipes.evaluate import evaluate"), "a recipe"
    assert violations(f"{FORMATS}.voc.read", f"from {FORMATS}.coco.read import read_coco"), "another format"
    assert violations("detseg.boxes", "def f():\n    import detseg.cli"), "inside a function"
    assert not violations("detseg.engine.train", "from detseg.models import build_model")


@pytest.mark.parametrize("path", SOURCES, ids=module_name)
def test_imports_point_down(path: Path) -> None:
    if path == PACKAGE / "__init__.py":
        return  # the lazy front door names rooms of every floor and imports none of them
    assert violations(module_name(path), path.read_text(encoding="utf-8")) == []


def find_circle(graph: dict[str, set[str]]) -> str:
    """A circle of imports as text, or "" if there is none."""
    done: set[str] = set()

    def walk(module: str, above: tuple[str, ...]) -> str:
        if module in above:
            return " -> ".join((*above, module))
        for name in sorted(graph.get(module, ()) if module not in done else ()):
            circle = walk(name, (*above, module))
            if circle:
                return circle
        done.add(module)
        return ""

    return next((circle for circle in (walk(module, ()) for module in graph) if circle), "")


def test_no_circles() -> None:
    """Not inside functions either; packages whose ``__init__`` only re-exports count as their modules."""
    known = {module_name(path) for path in SOURCES}
    graph = {module_name(path): imports(path.read_text(encoding="utf-8")) & known for path in SOURCES}
    graph["detseg"] = set()  # the lazy front door
    assert find_circle(graph) == ""
    assert find_circle({**graph, "detseg.errors": {"detseg.annotations.table"}}), "control"


@pytest.mark.parametrize("path", SOURCES, ids=module_name)
def test_files_and_functions_are_short(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert len(text.splitlines()) <= MAX_LINES
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            assert (node.end_lineno or 0) - node.lineno + 1 <= MAX_FUNCTION_LINES, node.name


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
    if (floor(module_name(path)) <= 1 or room(module_name(path)) in ("cli", "doctor", "reports"))
    and module_name(path) != "detseg.runtime.processes"  # torch.distributed
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


MAP = PACKAGE / "README.md"


def mapped_floors() -> dict[str, int]:
    """Package or file -> its floor, as the developers' map states it."""
    floors = {}
    for line in MAP.read_text(encoding="utf-8").splitlines():
        number = re.match(r"\| (\d+) \|", line)
        for target in re.findall(r"\]\(([^)]+)\)", line) if number else ():
            first = target.removesuffix("README.md").strip("/").split("/")[0].removesuffix(".py")
            floors.setdefault(first, int(number[1]) if number else 0)
    return floors


def test_the_map_names_every_package_and_its_floor() -> None:
    present = {
        path.stem
        for path in PACKAGE.iterdir()
        if (path.is_dir() and any(path.glob("*.py"))) or (path.suffix == ".py" and path.stem != "__init__")
    }
    assert mapped_floors() == {name: FLOORS.get(name, 0) for name in present}


def test_paths_of_the_map_exist() -> None:
    targets = re.findall(r"\]\((?!https?:)([^)#]+)\)", MAP.read_text(encoding="utf-8"))
    assert len(targets) > 40
    assert [target for target in targets if not (PACKAGE / target).exists()] == []


RUN_FILES = ("best.safetensors", "last.safetensors", "config.toml", "split.json", "metrics.jsonl", "curves.png")


def test_files_of_a_run_are_named_in_one_place() -> None:
    """As whole strings: messages may name them."""
    for path in SOURCES:
        strings = {
            node.value
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
            if isinstance(node, ast.Constant)
        }
        if module_name(path) == "detseg.runtime.run_folder":
            assert set(RUN_FILES) <= strings, "control"
        else:
            assert not strings & set(RUN_FILES), path
