"""Names of earlier versions that still work: modules, attributes, options, option values, keywords.

Each use from Python gives one DeprecationWarning, each use on the command line one line of notice. All of them go in
version 0.4.
"""

from __future__ import annotations

import functools
import importlib.util
import sys
import warnings
from collections.abc import Callable, Mapping, Sequence
from importlib.machinery import ModuleSpec
from types import CodeType, ModuleType
from typing import Any, TypeVar

GONE_IN = "0.4"

MODULES = {
    "detseg.config": "detseg.options",
    "detseg.demo": "detseg.synthetic.demo.render",
    "detseg.predictor": "detseg.inference.predictor",
    "detseg.recipes.fit": "detseg.training.fit",
    "detseg.recipes.model": "detseg.models.create",
    "detseg.scenes": "detseg.synthetic.scenes",
}
"""Old module -> the module that has its names now."""

COMMANDS = {
    "detseg.demo": ("detseg.synthetic.demo.__main__", ()),
    "detseg.pretrain": ("detseg.__main__", ("pretrain",)),
}
"""Module that was run with ``python -m`` -> the module that is run instead, and the arguments that come first."""

ATTRIBUTES = {
    "detseg.annotations": {"Notes": ("detseg.annotations", "RepairLog")},
    "detseg.datasets": {"LabelledPictures": ("detseg.datasets", "LabelledImages")},
    "detseg.engine": {
        "load": ("detseg.checkpoints", "load"),
        "load_checkpoint": ("detseg.checkpoints", "load_checkpoint"),
        "save_checkpoint": ("detseg.checkpoints", "save_checkpoint"),
    },
    "detseg.models": {"loss_mode": ("detseg.models", "losses_in_eval_mode")},
}
"""Module -> old attribute -> where it is now, and its name there."""


OPTIONS = {
    "body": "backbone",
    "body_lr": "backbone_lr_mult",
    "keep": "keep_checkpoints",
    "last_lr": "head_lr_mult",
    "map": "class_transfer",
    "tune_lr": "finetune_lr_mult",
}
"""Old option (TOML key, keyword; as a flag with dashes) -> the option of today."""

VALUES = {
    "augment": {"overhead": "aerial"},
    "freeze": {"body": "backbone"},
    "what": {"plain": "baseline"},
}
"""Option -> old value -> the value of today."""

LINEAR_PROBE = "probe-then-tune"
"""The value of the old option ``recipe`` that is ``linear_probe_epochs`` today; ``probe_epochs`` was its number."""

RECIPES = ("once", LINEAR_PROBE)
"""All values of the old option ``recipe``."""

KEYWORDS = {"body": "backbone", "class_rows": "class_transfer"}
"""Old keyword of ``create_model`` -> the keyword of today."""

F = TypeVar("F", bound=Callable[..., Any])
C = TypeVar("C", bound=type)


def warn(old: str, new: str) -> None:
    """One DeprecationWarning at the caller of the caller."""
    warnings.warn(f"{old} is now {new}; the old name goes in detseg {GONE_IN}", DeprecationWarning, stacklevel=3)


def attribute(module: str, name: str) -> Any:
    """The value of an old attribute of ``module``, for that module's ``__getattr__``.

    Raises:
        AttributeError: ``module`` never had an attribute of that name.
    """
    if name not in ATTRIBUTES.get(module, {}):
        raise AttributeError(f"module {module!r} has no attribute {name!r}")
    home, new = ATTRIBUTES[module][name]
    warn(f"{module}.{name}", f"{home}.{new}")
    return getattr(importlib.import_module(home), new)


def moved_function(home: str, name: str) -> Any:
    """A static method that calls the function ``name`` of the module ``home``, imported at the first call."""

    def call(*given: Any, **named: Any) -> Any:
        warn("this method", f"{home}.{name}")
        function: Callable[..., Any] = getattr(importlib.import_module(home), name)
        return function(*given, **named)

    return staticmethod(call)


def current_options(values: Mapping[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """Options under the names and with the values of today, and a notice for each that changed."""
    current: dict[str, Any] = {}
    notices: list[str] = []
    for name, value in values.items():
        if name == "probe_epochs" or (name == "recipe" and value in RECIPES):
            continue
        new = OPTIONS.get(name, name)
        known = VALUES.get(new, {})
        current[new] = known.get(value, value) if isinstance(value, str) else value
        if new != name:
            notices.append(f"{name} is now {new}")
        if current[new] is not value:
            notices.append(f"{new} {value} is now {current[new]}")
    probe = values.get("probe_epochs") or ("half" if values.get("recipe") == LINEAR_PROBE else None)
    if probe is not None:
        current["linear_probe_epochs"] = probe
        notices.append("recipe and probe_epochs are now linear_probe_epochs")
    return current, notices


def current_arguments(command: str, arguments: Sequence[str]) -> tuple[list[str], list[str]]:
    """Words of a command line with the flags and values of today, and a notice for each that changed."""
    current: list[str] = []
    notices: list[str] = []
    probe: list[str] = []
    words = list(arguments)
    while words:
        word = words.pop(0)
        flag, equals, value = word.partition("=")
        name = flag.removeprefix("--").replace("-", "_")
        if command == "benchmark" and not current and word in VALUES["what"]:
            current.append(VALUES["what"][word])
            notices.append(f"benchmark {word} is now benchmark {current[-1]}")
            continue
        if not flag.startswith("--") or name not in {*OPTIONS, *VALUES, "recipe", "probe_epochs"}:
            current.append(word)
            continue
        if not equals and words:
            value = words.pop(0)
        if name == "probe_epochs" or (name == "recipe" and value in RECIPES):
            probe = [value] if name == "probe_epochs" else probe or ["half"] * (value == LINEAR_PROBE)
            notices.append(f"{flag} is now --linear-probe-epochs")
            continue
        new = "--" + OPTIONS.get(name, name).replace("_", "-")
        known = VALUES.get(OPTIONS.get(name, name), {}).get(value, value)
        current += [f"{new}={known}"] if equals else [new, known]
        notices += [f"{flag} is now {new}"] * (new != flag) + [f"{flag} {value} is now {new} {known}"] * (
            known != value
        )
    return current + [word for number in probe for word in ("--linear-probe-epochs", number)], notices


def accepts_old_options(cls: C) -> C:
    """A dataclass of options that also takes the names and values of earlier versions."""
    init = cls.__init__  # type: ignore[misc]

    @functools.wraps(init)
    def __init__(self: Any, *given: Any, **named: Any) -> None:
        current, notices = current_options(named)
        for notice in notices:
            warnings.warn(f"{notice}; the old name goes in detseg {GONE_IN}", DeprecationWarning, stacklevel=2)
        init(self, *given, **current)

    cls.__init__ = __init__  # type: ignore[misc]
    return cls


def accepts_old_keywords(function: F) -> F:
    """A function that also takes the ``KEYWORDS`` of earlier versions."""

    @functools.wraps(function)
    def call(*given: Any, **named: Any) -> Any:
        for old in KEYWORDS.keys() & named.keys():
            warn(f"the keyword {old}", KEYWORDS[old])
            named[KEYWORDS[old]] = named.pop(old)
        return function(*given, **named)

    return call  # type: ignore[return-value]


def freeze_level(level: str) -> str:
    """A freeze level under its name of today."""
    return VALUES["freeze"].get(level, level)


class _OldModules:
    """Import an old module as the new one: the same object, so that classes and patches are the same, too.

    A finder and loader for ``sys.meta_path``, without the base classes of importlib.abc, whose import is slow.
    """

    def find_spec(self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None) -> Any:
        if name not in MODULES and name not in COMMANDS:
            return None
        loader: Any = self  # for the type checker, which knows no loader without its base class
        return ModuleSpec(name, loader, origin=__file__)

    def create_module(self, spec: ModuleSpec) -> None:
        return None

    def exec_module(self, module: ModuleType) -> None:
        name = module.__name__
        if name in MODULES:
            warn(name, MODULES[name])
            sys.modules[name] = importlib.import_module(MODULES[name])

    def get_code(self, name: str) -> CodeType:
        """The code that ``python -m NAME`` runs."""
        module, first = COMMANDS[name]
        warn(f"python -m {name}", " ".join(("python -m", module.removesuffix(".__main__"), *first)))
        sys.argv[1:1] = first
        spec = importlib.util.find_spec(module)
        assert spec is not None
        return spec.loader.get_code(module)  # type: ignore[union-attr]


def install() -> None:
    """Let the import statement find old modules."""
    if not any(isinstance(finder, _OldModules) for finder in sys.meta_path):
        sys.meta_path.append(_OldModules())
