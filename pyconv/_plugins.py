"""Installed operators: what the entry points say, and how one is loaded and checked."""

from __future__ import annotations

import importlib.metadata
import re
import threading
import warnings
from collections.abc import Iterable
from functools import cached_property
from typing import TYPE_CHECKING, Any, cast

import pyconv
from pyconv.checks import shown
from pyconv.errors import PluginError

if TYPE_CHECKING:
    from pyconv.operator import Operator

GROUP = "pyconv.operators"

#: The version of the operator interface; an operator says by ``api_version`` which one it is for.
API_VERSION = 1

_METHODS = ("backward", "plan", "output_shape", "cost", "reference", "cases")
_ATTRIBUTES = ("name", "summary", "aliases", "url", "api_version", "algorithms", *_METHODS)

_loading = threading.local()


class Plugin:
    """An entry point. Its distribution's metadata is parsed when asked for, which is rarely."""

    def __init__(self, entry_point: importlib.metadata.EntryPoint) -> None:
        self.name = entry_point.name
        self.value = entry_point.value
        self._entry_point = entry_point

    def __str__(self) -> str:
        """Return the distribution and its version."""
        return f"{self.distribution} {self.version or '(unknown version)'}"

    @cached_property
    def distribution(self) -> str:
        """The name of the distribution, as it spells it."""
        return self._metadata("name") or "unknown"

    @cached_property
    def version(self) -> str | None:
        """The version of the distribution."""
        return self._metadata("version")

    @property
    def source(self) -> tuple[str, str]:
        """What two entry points have in common if they are one operator under two names."""
        return normalized(self.distribution), self.value

    @property
    def qualified(self) -> str:
        """``"distribution:name"``."""
        return f"{normalized(self.distribution)}:{self.name}"

    def load(self) -> Operator:
        """Import the operator and check it; `PluginError` if anything is wrong with it."""
        try:
            return self._import()
        except (KeyboardInterrupt, MemoryError):
            raise
        except BaseException as error:  # SystemExit included: a plugin does not end the program
            raise self.error(error) from error

    def error(self, cause: BaseException) -> PluginError:
        """Return the exception that says that `cause` makes this operator unusable."""
        return PluginError(
            f"the operator {self.name!r} of {self} cannot be used: {described(cause)}"
            f" (entry point {self.value!r})"
        )

    def _import(self) -> Operator:
        active: set[tuple[str, str]] = _loading.__dict__.setdefault("active", set())
        if self.source in active:
            raise RuntimeError("it asks for itself while it is being loaded")
        active.add(self.source)
        try:
            value: Any = self._entry_point.load()
            # An operator is callable too, but it has more of an operator's attributes.
            few = len(_missing(value)) > len(_ATTRIBUTES) // 2
            if isinstance(value, type) or (callable(value) and few):
                value = value()
            check_operator(value)
        finally:
            active.discard(self.source)
        return cast("Operator", value)

    def _metadata(self, field: str) -> str | None:
        try:
            value = getattr(self._entry_point.dist, field, None)
        except Exception:  # a METADATA file that is missing or cannot be read
            return None
        return value if isinstance(value, str) else None


def installed() -> dict[str, list[Plugin]]:
    """Return the installed entry points by name; nothing of them is imported."""
    table: dict[str, list[Plugin]] = {}
    for entry_point in _entry_points():
        table.setdefault(entry_point.name, []).append(Plugin(entry_point))
    return table


def _entry_points() -> Iterable[importlib.metadata.EntryPoint]:
    try:
        return importlib.metadata.entry_points(group=GROUP)
    except Exception:
        # One distribution with a malformed file must not hide the others.
        readable: dict[str, Iterable[importlib.metadata.EntryPoint]] = {}
        for distribution in importlib.metadata.distributions():
            where = str(getattr(distribution, "_path", distribution))
            try:
                points = distribution.entry_points
                # The first on sys.path is the one that Python imports.
                readable.setdefault(normalized(distribution.name or where), points)
            except Exception as error:
                warnings.warn(
                    f"pyconv cannot read the entry points of {where}: {described(error)}",
                    RuntimeWarning,
                    stacklevel=2,
                )
        return [p for points in readable.values() for p in points if p.group == GROUP]


def check_operator(operator: Any) -> None:
    """Raise `TypeError` or `ValueError` unless `operator` is what every caller relies on."""
    version = getattr(operator, "api_version", API_VERSION)
    if version != API_VERSION:
        newer = isinstance(version, int) and version > API_VERSION
        raise ValueError(
            f"{shown(operator)} is for version {shown(version)} of pyconv's operator interface, "
            f"and pyconv {pyconv.__version__} has version {API_VERSION}: update "
            + ("pyconv" if newer else "the operator")
        )
    missing = _missing(operator)
    if isinstance(operator, type) or missing or not callable(operator):
        lacks = f", which has no {', '.join(missing)}" if missing else ""
        raise TypeError(
            f"an operator must be an instance of pyconv.Operator; got {shown(operator)}{lacks}"
        )
    if not isinstance(operator.summary, str):
        raise TypeError(f"an operator's summary must be a str; got {shown(operator.summary)}")
    aliases = operator.aliases
    if not isinstance(aliases, tuple):
        raise TypeError(f"an operator's aliases must be a tuple of str; got {shown(aliases)}")
    for name in (operator.name, *aliases):
        if not isinstance(name, str):
            raise TypeError(f"an operator's name or alias must be a str; got {shown(name)}")
        if ":" in name or name.split() != [name]:
            raise ValueError(
                f"an operator's name or alias must be a word without a colon; got {shown(name)}"
            )


def _missing(operator: Any) -> list[str]:
    return [
        attribute
        for attribute in _ATTRIBUTES
        if not hasattr(operator, attribute)
        or (attribute in _METHODS and not callable(getattr(operator, attribute)))
    ]


def normalized(distribution: str) -> str:
    """Return a distribution's name in the spelling by which PEP 503 compares names."""
    return re.sub(r"[-_.]+", "-", distribution).lower()


def described(error: BaseException) -> str:
    """Return an exception as one line of text."""
    return f"{type(error).__name__}: {error}".rstrip(": ")
