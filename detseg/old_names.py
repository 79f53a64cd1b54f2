"""Names of earlier versions that still work. Each use gives one DeprecationWarning; all of them go in version 0.4."""

from __future__ import annotations

import importlib.util
import sys
import warnings
from collections.abc import Callable, Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import CodeType, ModuleType
from typing import Any

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
    "detseg.engine": {
        "load": ("detseg.checkpoints", "load"),
        "load_checkpoint": ("detseg.checkpoints", "load_checkpoint"),
        "save_checkpoint": ("detseg.checkpoints", "save_checkpoint"),
    },
}
"""Module -> old attribute -> where it is now, and its name there."""


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


class _OldModules(MetaPathFinder, Loader):
    """Import an old module as the new one: the same object, so that classes and patches are the same, too."""

    def find_spec(self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None) -> Any:
        if name not in MODULES and name not in COMMANDS:
            return None
        return ModuleSpec(name, self, origin=__file__)

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
