"""The registry of operators: built-in, installed by other packages, or registered in-process.

A name is looked for in this order, by `get` and by `available` alike:

1. what `register` was given, by name and then by alias, the newest first;
2. the built-in operators, by name and then by alias;
3. the entry points of the group ``pyconv.operators``, by the entry point's name.

Nothing is read or imported before it is needed: not the metadata of installed distributions, not a
plugin, not a built-in.
"""

from __future__ import annotations

import importlib
import os
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Literal, NoReturn

import pyconv
from pyconv._plugins import API_VERSION, Plugin, check_operator, described, installed, normalized
from pyconv.checks import fail, fail_type, shown
from pyconv.errors import PluginError, UnknownOperatorError
from pyconv.operators import builtin_names, load_builtin

if TYPE_CHECKING:
    from pyconv.operator import Operator

__all__ = ["API_VERSION", "OperatorInfo", "available", "get", "refresh", "register", "unregister"]

DISTRIBUTION = "pyconv-ops"


@dataclass(frozen=True)
class OperatorInfo:
    """What `available` says about one operator.

    Attributes
    ----------
    name : str
        What `get` takes: the operator's name, or ``"distribution:name"`` where the plain name
        means another operator or more than one.
    summary : str
        One line on what the operator does; empty if it could not be loaded.
    aliases : tuple of str
        The other names by which `get` finds it.
    distribution : str or None
        The installed distribution that it comes from, None if it was registered in-process.
    version : str or None
        That distribution's version.
    status : {"ok", "broken", "ambiguous"}
        ``"broken"`` if `get` raises because the operator cannot be loaded, ``"ambiguous"`` if it
        raises because several distributions offer the name.
    error : str or None
        Why `get` raises; None if it does not.
    """

    name: str
    summary: str
    aliases: tuple[str, ...]
    distribution: str | None
    version: str | None
    status: Literal["ok", "broken", "ambiguous"] = "ok"
    error: str | None = None


class _Registry:
    """What changes. Containers are replaced or only grow, so that reading them needs no lock.

    No lock is held while an operator is imported: its code may be waiting, in another thread,
    for the registry.
    """

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self.registered: tuple[Operator, ...] = ()  # newest first
        self.plugins: Mapping[str, list[Plugin]] | None = None  # None: metadata not read yet
        self.loaded: dict[tuple[str, str], Operator] = {}  # by Plugin.source
        self.found: dict[str, Operator] = {}  # the answers of `get`


_registry = _Registry()


def _after_fork_in_child() -> None:
    # A thread that held the lock in the parent is not there to release it.
    _registry.lock = threading.RLock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)


def get(name: str) -> Operator:
    """Return the operator called `name`, loading it if need be, and no other plugin.

    Parameters
    ----------
    name : str
        A name or an alias; or ``"distribution:name"`` for what one installed distribution offers,
        where several offer the name or where another operator goes before it.

    Returns
    -------
    Operator
        The same object each time, until `register`, `unregister` or `refresh` change the answer.

    Raises
    ------
    UnknownOperatorError
        If there is no such operator.
    PluginError
        If an installed operator has the name but cannot be used, or if several distributions
        offer it.

    Examples
    --------
    >>> import pyconv
    >>> pyconv.get("dilated") is pyconv.get("atrous")
    True
    """
    if not isinstance(name, str):
        fail_type("get", "name", "be a str", name)
    found = _registry.found  # replaced when an answer changes: no stale one gets into the new
    operator = found.get(name)
    if operator is None:
        operator = found.setdefault(name, _find(name))
    return operator


def available() -> Mapping[str, OperatorInfo]:
    """Load every operator and return what is known about each, sorted by name.

    Returns
    -------
    Mapping of str to OperatorInfo
        Read-only. A plugin that fails to load is listed as such and disturbs no other. An
        installed operator that its plain name does not reach (another goes before it, or several
        distributions offer it) is listed as ``"distribution:name"``.

    Examples
    --------
    >>> import pyconv
    >>> pyconv.available()["depthwise_separable"].aliases
    ('separable',)
    """
    infos: dict[str, OperatorInfo] = {}
    taken: set[str] = set()  # names that what comes later cannot have

    for operator in _registry.registered:
        if operator.name not in infos:  # else a newer registration shadows it
            infos[operator.name] = _info(operator.name, operator, None, None)
        taken.update((operator.name, *operator.aliases))

    builtins, failures = _builtins()
    everything: dict[str, Operator | Exception] = {**builtins, **failures}
    for name, what in everything.items():
        key = f"{DISTRIBUTION}:{name}" if name in taken else name
        infos[key] = _info(key, what, DISTRIBUTION, pyconv.__version__)
    taken.update(everything, *(builtin.aliases for builtin in builtins.values()))

    for name, plugins in _plugins().items():
        reached = name not in taken and len(plugins) == 1
        if name not in taken and not reached:
            error = str(_ambiguous(name, plugins))
            infos[name] = OperatorInfo(name, "", (), None, None, "ambiguous", error)
        for plugin in plugins:
            key = name if reached else plugin.qualified
            what = _attempt(_load, plugin)
            if not _is_alias(plugin, what):
                infos[key] = _info(key, what, plugin.distribution, plugin.version)
    return MappingProxyType(dict(sorted(infos.items())))


def register(operator: Operator, *, replace: bool = False) -> Operator:
    """Make `operator` known to `get` in this process.

    It goes before an installed operator of the same name: what a program registers does not
    depend on what else is installed.

    Parameters
    ----------
    operator : Operator
        An operator: an instance, not its class.
    replace : bool, default: False
        Shadow registered and built-in operators that have its name or one of its aliases.

    Returns
    -------
    Operator
        `operator` itself.

    Raises
    ------
    TypeError
        If `operator` is not an operator.
    ValueError
        If one of its names is taken and `replace` is False, or is not a word, or if `operator` is
        for another version of the operator interface.

    See Also
    --------
    unregister : Take the newest registration of a name back.
    """
    check_operator(operator)
    taken: dict[str, str] = {}
    if not replace:
        # Not under the lock: it imports the built-ins, to see their aliases.
        builtins, failures = _builtins()
        taken.update(dict.fromkeys(failures, "a built-in operator"))
        for builtin in builtins.values():
            taken.update(dict.fromkeys((builtin.name, *builtin.aliases), "a built-in operator"))
    with _registry.lock:
        for other in _registry.registered if not replace else ():
            taken.update(dict.fromkeys((other.name, *other.aliases), "a registered operator"))
        for name in (operator.name, *operator.aliases):
            if name in taken:
                rule = f"have free names, or replace=True to shadow {taken[name]}"
                fail("register", "operator", rule, name)
        _registry.registered = (operator, *_registry.registered)
        _registry.found = {}
    return operator


def unregister(name: str) -> None:
    """Undo the newest `register` of an operator called `name`.

    What it had shadowed is found again, be it built-in, installed or registered.

    Parameters
    ----------
    name : str
        The operator's name; an alias will not do.

    Raises
    ------
    LookupError
        If no operator of that name is registered in this process.
    """
    with _registry.lock:
        names = [operator.name for operator in _registry.registered]
        if name not in names:
            raise LookupError(
                f"unregister: name must be that of an operator registered in this process"
                f" ({', '.join(sorted(set(names))) or 'there is none'}); got {shown(name)}"
            )
        at = names.index(name)
        _registry.registered = _registry.registered[:at] + _registry.registered[at + 1 :]
        _registry.found = {}


def refresh() -> None:
    """Look at the installed entry points again, for example after installing a package.

    Plugins are loaded anew when they are asked for. What `register` was given stays.
    """
    importlib.invalidate_caches()
    with _registry.lock:
        _registry.plugins = None
        _registry.loaded = {}
        _registry.found = {}


def _find(name: str) -> Operator:
    before, colon, bare = name.partition(":")
    distribution = normalized(before) if colon else None
    operator = None
    if distribution is None:
        bare = name
        operator = _find_registered(bare)
    if operator is None and distribution in (None, DISTRIBUTION):
        operator = _find_builtin(bare)
    if operator is None:
        operator = _find_plugin(name, bare, distribution)
    return operator


def _find_registered(name: str) -> Operator | None:
    registered = _registry.registered
    named = [operator for operator in registered if operator.name == name]
    aliased = [operator for operator in registered if name in operator.aliases]
    return next(iter(named + aliased), None)


def _find_builtin(name: str) -> Operator | None:
    if name in builtin_names():
        return load_builtin(name)
    builtins, _ = _builtins()
    return next((operator for operator in builtins.values() if name in operator.aliases), None)


def _find_plugin(asked: str, name: str, distribution: str | None) -> Operator:
    plugins = [
        plugin
        for plugin in _plugins().get(name, ())
        if distribution in (None, normalized(plugin.distribution))
    ]
    if not plugins:
        _unknown(asked)
    if len(plugins) > 1:
        raise _ambiguous(name, plugins)
    return _load(plugins[0])


def _builtins() -> tuple[dict[str, Operator], dict[str, Exception]]:
    """Import every built-in; return those that work, and why the others do not."""
    builtins, failures = {}, {}
    for name in builtin_names():
        try:
            builtins[name] = load_builtin(name)
        except Exception as error:
            failures[name] = error
    return builtins, failures


def _plugins() -> Mapping[str, list[Plugin]]:
    plugins = _registry.plugins
    if plugins is None:
        with _registry.lock:
            plugins = _registry.plugins
            if plugins is None:
                plugins = _registry.plugins = installed()
    return plugins


def _load(plugin: Plugin) -> Operator:
    loaded = _registry.loaded
    operator = loaded.get(plugin.source)
    if operator is None:
        # Threads that get here together may each call a plugin's function; all return one result.
        operator = loaded.setdefault(plugin.source, plugin.load())
    if plugin.name not in (operator.name, *operator.aliases):
        cause = ValueError(f"its name is {operator.name!r}, and {plugin.name!r} is no alias of it")
        raise plugin.error(cause) from cause
    return operator


def _is_alias(plugin: Plugin, loaded: Operator | Exception) -> bool:
    """Whether `plugin` is a second entry point of an operator that has one by its own name."""
    if isinstance(loaded, Exception) or loaded.name == plugin.name:
        return False
    return any(other.source == plugin.source for other in _plugins().get(loaded.name, ()))


def _info(
    key: str, what: Operator | Exception, distribution: str | None, version: str | None
) -> OperatorInfo:
    if isinstance(what, Exception):
        cause = what.__cause__ if isinstance(what, PluginError) else None
        error = described(cause or what)
        return OperatorInfo(key, "", (), distribution, version, "broken", error)
    # As `get` has them: an alias may belong to another operator, or have no entry point.
    aliases = tuple(alias for alias in what.aliases if _attempt(get, alias) is what)
    return OperatorInfo(key, what.summary, aliases, distribution, version)


def _attempt(load: Callable[[Any], Operator], argument: object) -> Operator | Exception:
    try:
        return load(argument)
    except Exception as error:
        return error


def _ambiguous(name: str, plugins: list[Plugin]) -> PluginError:
    offers = " and ".join(sorted(map(str, plugins)))
    calls = " or ".join(sorted({f'pyconv.get("{plugin.qualified}")' for plugin in plugins}))
    return PluginError(f"the operator {name!r} is offered by {offers}: choose with {calls}")


def _unknown(name: str) -> NoReturn:
    builtins, failures = _builtins()
    known: dict[str, tuple[str, ...]] = {
        operator.name: operator.aliases
        for operator in (*builtins.values(), *reversed(_registry.registered))
    }
    known.update(dict.fromkeys(failures, ()))
    for other, plugins in _plugins().items():
        if other not in known and len(plugins) == 1:
            known[other] = ()
        else:
            known.update((plugin.qualified, ()) for plugin in plugins)
    # If a built-in cannot be imported, `name` may be an alias of it.
    raise UnknownOperatorError(name, known) from next(iter(failures.values()), None)
