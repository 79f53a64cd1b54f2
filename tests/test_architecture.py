"""Structure: imports point down, siblings do not import each other, heavy libraries have one home, files are short."""

from __future__ import annotations

import ast
import functools
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
    if (floor(module_name(path)) <= 1 or room(module_name(path)) in ("cli", "doctor", "metrics", "reports"))
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


def class_names(folder: str, base: str) -> set[str]:
    """Names of the classes in a folder of the package that have a base class of the name ``base``."""
    return {
        node.name
        for path in (PACKAGE / folder).glob("*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.ClassDef) and any(base in names_in(expression) for expression in node.bases)
    }


def names_in(node: ast.AST | None) -> set[str]:
    """All names and attribute names in an expression."""
    inner = () if node is None else ast.walk(node)
    return {n.id if isinstance(n, ast.Name) else n.attr for n in inner if isinstance(n, (ast.Name, ast.Attribute))}


DATASETS = class_names("datasets", "Dataset")
LOADERS = class_names("datasets", "DataLoader") | {"FeatureLoader", "EvaluationFeatures"}


def type_checks(source: str, classes: set[str]) -> list[str]:
    """Checks of a source text for one of ``classes``: ``isinstance``, ``issubclass``, and ``type(x) is C``."""
    found = []
    for node in ast.walk(ast.parse(source)):
        call = isinstance(node, ast.Call) and names_in(node.func) & {"isinstance", "issubclass"}
        if call and any(names_in(argument) & classes for argument in node.args[1:]):  # type: ignore[attr-defined]
            found.append(ast.unparse(node))
        if isinstance(node, ast.Compare) and "type" in names_in(node.left):
            found += [ast.unparse(node)] * any(names_in(side) & classes for side in node.comparators)
    return found


@pytest.mark.parametrize("path", SOURCES, ids=module_name)
def test_datasets_and_loaders_are_chosen_by_contract_and_not_by_class(path: Path) -> None:
    assert type_checks(path.read_text(encoding="utf-8"), DATASETS | LOADERS) == []


def test_control_type_checks_are_seen() -> None:
    assert {
        "Dataset",
        "LabelledImages",
        "RenderedScenes",
        "Views",
        "UncachedViews",
        "EveryView",
        "_EchoedGroups",
    } == DATASETS
    assert {"Loader", "FeatureLoader", "EvaluationFeatures"} == LOADERS
    assert type_checks("isinstance(dataset, Dataset)", DATASETS)
    assert type_checks("isinstance(x, (int, torch.utils.data.Dataset))", DATASETS)
    assert type_checks("if a or issubclass(x, views.Views | int): pass", DATASETS)
    assert type_checks("type(x) is Dataset", DATASETS)
    assert not type_checks("isinstance(Dataset, HasTable)", DATASETS)


@functools.cache
def attributes_of_datasets() -> set[str]:
    """Names that only datasets assign to ``self``; no other class of the package has an attribute of that name."""
    own: set[str] = set()
    others: set[str] = set()
    for path in SOURCES:
        for owner in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(owner, ast.ClassDef):
                names = own if owner.name in DATASETS else others
                names.update(target.attr for target in assigned_attributes(owner))
                for node in owner.body:  # fields of dataclasses
                    names.update(names_in(node.target) if isinstance(node, ast.AnnAssign) else ())
    return own - others


def assigned_attributes(tree: ast.AST) -> list[ast.Attribute]:
    """Every ``x.y`` that is assigned, also in tuples, with ``+=`` and with ``del``."""
    return [n for n in ast.walk(tree) if isinstance(n, ast.Attribute) and isinstance(n.ctx, (ast.Store, ast.Del))]


def assigned_from_outside(source: str, attributes: set[str]) -> list[str]:
    """Assignments to an attribute of a dataset by code that is not the dataset itself.

    A dataset is recognized by its class (annotation or construction of a variable), by the name ``dataset``, or by the
    name of the assigned attribute, which is one of ``attributes``.
    """
    tree = ast.parse(source)
    variables = {"dataset"}
    for node in ast.walk(tree):
        if isinstance(node, ast.arg) and names_in(node.annotation) & DATASETS:
            variables.add(node.arg)
        if isinstance(node, ast.AnnAssign) and names_in(node.annotation) & DATASETS:
            variables |= names_in(node.target) - {"self"}
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Call):
            function = node.value.func
            name = function.attr if isinstance(function, ast.Attribute) else getattr(function, "id", "")
            if name in DATASETS:
                variables |= set().union(*map(names_in, node.targets)) - {"self"}
    found = []
    for target in assigned_attributes(tree):
        owner = target.value
        last = owner.attr if isinstance(owner, ast.Attribute) else getattr(owner, "id", "")
        if last not in ("self", "cls") and (last in variables or target.attr in attributes):
            found.append(ast.unparse(target))
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in ("setattr", "delattr"):
            found += [ast.unparse(node)] * bool(names_in(node.args[0]) & variables)
    return found


@pytest.mark.parametrize("path", SOURCES, ids=module_name)
def test_nothing_is_written_into_a_dataset_from_outside(path: Path) -> None:
    assert assigned_from_outside(path.read_text(encoding="utf-8"), attributes_of_datasets()) == []


def test_control_assignments_from_outside_are_seen() -> None:
    attributes = attributes_of_datasets()
    assert {"cached", "views"} <= attributes
    assert not {"table", "source", "size_hw"} & attributes, "other classes have them too"
    for source in (
        "def f(views: Views, store): views.cached = store.keys",
        "def f(views: Views | None): views.new = 1",
        "data = Dataset(table)\ndata.new = 1",
        "a, loader.dataset.new = 1, 2",
        "dataset.new += 1",
        "anything.cached = ()",
        "def f(loader): setattr(loader.dataset, 'new', 1)",
    ):
        assert assigned_from_outside(source, attributes), source
    assert not assigned_from_outside("self.cached = cached\nself.dataset = views\nmodel.new = 1", attributes)


def test_the_feature_cache_has_one_entrance() -> None:
    """Other packages use ``FeatureCache``, and know neither its store nor its loaders."""
    inner = {"detseg.features.store", "detseg.features.loader"}
    for path in SOURCES:
        text = path.read_text(encoding="utf-8")
        used = imports(text) & inner if "detseg.features" in text else set()
        assert room(module_name(path)) == "features" or not used, f"{path} imports {used}"
    assert imports((PACKAGE / "features" / "cache.py").read_text(encoding="utf-8")) & inner, "control"


OPENED_DIRECTLY = re.compile(
    r'\.open\("rb"\)|\.read_bytes\(\)|\.iterdir\(\)|\.stat\(\)\.st_size|os\.(scandir|listdir)\(|os\.path\.is(file|dir)\('
)
NOT_DATA = ("annotations/split_file.py", "annotations/formats/shared/output_paths.py")
"""Files of a run, and a folder to write into."""


@pytest.mark.parametrize("folder", ["annotations", "datasets", "doctor", "images.py", "value_range.py"])
def test_data_is_opened_and_listed_by_media(folder: str) -> None:
    """Else it would not be found in an archive."""
    paths = [PACKAGE / folder] if folder.endswith(".py") else sorted((PACKAGE / folder).rglob("*.py"))
    direct = [
        path.relative_to(PACKAGE).as_posix()
        for path in paths
        if OPENED_DIRECTLY.search(path.read_text(encoding="utf-8"))
    ]
    assert {*direct} <= {*NOT_DATA}
    assert OPENED_DIRECTLY.search('with path.open("rb") as file:'), "control"
    assert not OPENED_DIRECTLY.search("with open_file(path) as file:")
