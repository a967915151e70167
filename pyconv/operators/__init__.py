"""The built-in operators: one module each, found by being here.

A module of this package whose name has no leading underscore *is* an operator: it is called what
the module is called, and holds one `~pyconv.Operator` instance as ``OPERATOR``. There is no list
to keep, and a name is found without importing the other operators.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, cast

if TYPE_CHECKING:
    from pyconv.operator import Operator

__all__ = ["builtin_names", "load_builtin"]


def builtin_names() -> list[str]:
    """Return the names of the built-in operators, sorted; none of them is imported."""
    # Needed only here. It asks the package's loader, so it works from a zip file too.
    from pkgutil import iter_modules

    return sorted(m.name for m in iter_modules(__path__) if not m.name.startswith("_"))


def load_builtin(name: str) -> Operator:
    """Return the built-in operator called `name`; its module is imported at the first use."""
    return cast("Operator", import_module(f"{__name__}.{name}").OPERATOR)
