"""What this installation of pyconv consists of, for bug reports and the curious."""

from __future__ import annotations

import importlib.metadata
import platform
from dataclasses import asdict
from typing import Any, Literal, overload

__all__ = ["show_config"]

# The dates that the macro _OPENMP stands for, by version of the OpenMP specification.
_OPENMP_VERSIONS = {
    200505: "2.5",
    200805: "3.0",
    201107: "3.1",
    201307: "4.0",
    201511: "4.5",
    201811: "5.0",
    202011: "5.1",
    202111: "5.2",
    202411: "6.0",
}


@overload
def show_config(mode: Literal["stdout"] = "stdout") -> None: ...
@overload
def show_config(mode: Literal["dicts"]) -> dict[str, Any]: ...
@overload
def show_config(mode: str) -> dict[str, Any] | None: ...
def show_config(mode: str = "stdout") -> dict[str, Any] | None:
    """Show the version, compiler, instruction sets, OpenMP runtime and threads in use.

    Parameters
    ----------
    mode : {"stdout", "dicts"}
        Print it, or return it as nested dicts of JSON types.

    Returns
    -------
    dict or None
        With ``mode="dicts"``, a dict with the keys ``pyconv``, ``python``, ``numpy`` and
        ``platform`` (text); ``kernels`` (``compiler``; ``openmp``: the version of the OpenMP
        specification, None for a serial build; ``built``, ``supported``, ``disabled``: lists of
        instruction sets that were compiled, that this CPU has, and that ``PYCONV_DISABLE_CPU``
        rules out; ``picked``: the one in use), or only ``error`` if they cannot be loaded; and
        ``threads`` (``count`` and ``source``: what decided it), or only ``error``.

    Raises
    ------
    TypeError, ValueError
        If `mode` is neither ``"stdout"`` nor ``"dicts"``.

    Examples
    --------
    >>> import pyconv
    >>> sorted(pyconv.show_config("dicts"))
    ['kernels', 'numpy', 'platform', 'pyconv', 'python', 'threads']
    """
    # Here, because reading `pyconv.__version__` should not load NumPy.
    import numpy as np

    from pyconv.checks import choice

    choice("show_config", "mode", mode, ("stdout", "dicts"))
    config = {
        "pyconv": version(),
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        "numpy": np.__version__,
        "platform": platform.platform(),
        "kernels": _or_error(_kernels),
        "threads": _or_error(_threads),
    }
    if mode == "dicts":
        return config
    print(_as_text(config))
    return None


def version() -> str:
    """Return the version of the installed distribution, ``"0+unknown"`` if there is none."""
    try:
        return importlib.metadata.version("pyconv-ops")
    except importlib.metadata.PackageNotFoundError:
        return "0+unknown"


def _kernels() -> dict[str, Any]:
    from pyconv._kernels import _cpu

    config = _cpu.config()
    openmp = config["openmp"]
    return {
        "compiler": config["compiler"],
        "openmp": _OPENMP_VERSIONS.get(openmp, str(openmp)) if openmp else None,
        "built": list(config["built"]),
        "supported": list(config["supported"]),
        "disabled": list(config["disabled"]),
        "picked": config["picked"],
    }


def _threads() -> dict[str, Any]:
    from pyconv._threads import choice

    return asdict(choice())


def _or_error(part: Any) -> dict[str, Any]:
    # Whoever asks may be about to report exactly this error.
    try:
        result: dict[str, Any] = part()
    except Exception as error:
        return {"error": f"{type(error).__name__}: {error}"}
    return result


def _as_text(config: dict[str, Any]) -> str:
    rows: list[tuple[str, str]] = []
    for key, value in config.items():
        if isinstance(value, dict):
            rows.append((f"{key}:", ""))
            rows += [(f"  {name}:", _shown(entry)) for name, entry in value.items()]
        else:
            rows.append((f"{key}:", _shown(value)))
    width = max(len(label) for label, _ in rows)
    return "\n".join(f"{label:{width}}  {text}".rstrip() for label, text in rows)


def _shown(value: object) -> str:
    if isinstance(value, list):
        return ", ".join(map(str, value)) or "none"
    return "no" if value is None else str(value)
