"""The exceptions that pyconv adds to Python's own."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence

__all__ = ["PluginError", "UnknownOperatorError"]


class UnknownOperatorError(LookupError):
    """No operator has the name that was asked for.

    Parameters
    ----------
    name : str
        The name asked for.
    known : mapping of str to sequence of str
        The names that would have worked, each with its aliases.
    """

    def __init__(self, name: str, known: Mapping[str, Sequence[str]]) -> None:
        # As LookupError's arguments the fields survive pickling, so that the error can cross
        # from a worker process.
        super().__init__(name, known)
        self.name = name
        self.known = known

    @property
    def matches(self) -> list[str]:
        """The known names and aliases that look like `name`, best first."""
        spellings = {
            _folded(known): known
            for name, aliases in self.known.items()
            for known in (*aliases, name)
        }
        return [spellings[m] for m in difflib.get_close_matches(_folded(self.name), spellings)]

    def __str__(self) -> str:
        """Return the name, its close matches, all known names and how to get more."""
        matches = " or ".join(repr(match) for match in self.matches)
        known = ", ".join(
            f"{name} ({', '.join(aliases)})" if aliases else name
            for name, aliases in sorted(self.known.items())
        )
        return (
            f"no operator is called {self.name!r}"
            + (f"; did you mean {matches}?" if matches else ".")
            + f" Known operators: {known or 'none'}."
            + " More come with packages that have an entry point in the group 'pyconv.operators':"
            + " install one with pip and call pyconv.refresh(),"
            + " or pass an operator of your own to pyconv.register()."
        )


class PluginError(RuntimeError):
    """An installed operator cannot be used, or a name does not say which one is meant.

    Or an operator does not return what its interface asks for. The exception that the plugin
    raised, if it raised one, is the ``__cause__``.
    """


def _folded(name: str) -> str:
    return name.lower().replace("-", "_").replace(" ", "_")
