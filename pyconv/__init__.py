"""Convolution operators for NumPy arrays on the CPU, behind one registry.

>>> import pyconv
>>> op = pyconv.get("dilated")

Importing this package imports nothing else: each name below is loaded at its first use.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pyconv import config as config
    from pyconv import errors as errors
    from pyconv import kernels as kernels
    from pyconv import operator as operator
    from pyconv import operators as operators
    from pyconv import reference as reference
    from pyconv import registry as registry
    from pyconv import testing as testing
    from pyconv._threads import get_num_threads, set_num_threads, threads
    from pyconv.config import show_config
    from pyconv.errors import PluginError, UnknownOperatorError
    from pyconv.operator import Operator, Plan
    from pyconv.operators.deformable import deformable_conv
    from pyconv.operators.depthwise import depthwise_conv
    from pyconv.operators.depthwise_separable import depthwise_separable_conv
    from pyconv.operators.dilated import dilated_conv
    from pyconv.operators.grouped import grouped_conv
    from pyconv.operators.pointwise import pointwise_conv
    from pyconv.operators.sampled import sampled_conv
    from pyconv.operators.spatially_separable import spatially_separable_conv
    from pyconv.operators.standard import conv
    from pyconv.operators.transposed import transposed_conv
    from pyconv.registry import OperatorInfo, available, get, refresh, register, unregister

    __version__: str

__all__ = [
    "Operator",
    "OperatorInfo",
    "Plan",
    "PluginError",
    "UnknownOperatorError",
    "__version__",
    "available",
    "conv",
    "deformable_conv",
    "depthwise_conv",
    "depthwise_separable_conv",
    "dilated_conv",
    "get",
    "get_num_threads",
    "grouped_conv",
    "pointwise_conv",
    "refresh",
    "register",
    "sampled_conv",
    "set_num_threads",
    "show_config",
    "spatially_separable_conv",
    "threads",
    "transposed_conv",
    "unregister",
]

# Where the names are. None of them may be called like a module of this package: importing that
# module would put it in the name's place (hence _threads.py).
_HOMES = {
    "_threads": ("get_num_threads", "set_num_threads", "threads"),
    "config": ("show_config",),
    "errors": ("PluginError", "UnknownOperatorError"),
    "operator": ("Operator", "Plan"),
    "operators.deformable": ("deformable_conv",),
    "operators.depthwise": ("depthwise_conv",),
    "operators.depthwise_separable": ("depthwise_separable_conv",),
    "operators.dilated": ("dilated_conv",),
    "operators.grouped": ("grouped_conv",),
    "operators.pointwise": ("pointwise_conv",),
    "operators.sampled": ("sampled_conv",),
    "operators.spatially_separable": ("spatially_separable_conv",),
    "operators.standard": ("conv",),
    "operators.transposed": ("transposed_conv",),
    "registry": ("OperatorInfo", "available", "get", "refresh", "register", "unregister"),
}
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names}
_MODULES = (
    "config", "errors", "kernels", "operator", "operators", "reference", "registry", "testing",
)  # fmt: skip


def __getattr__(name: str) -> Any:
    value: Any
    if name in _HOME_OF:
        value = getattr(import_module(f"{__name__}.{_HOME_OF[name]}"), name)
    elif name in _MODULES:
        value = import_module(f"{__name__}.{name}")
    elif name == "__version__":
        value = import_module(f"{__name__}.config").version()
    else:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*__all__, *_MODULES, *(name for name in globals() if name.startswith("__"))})
