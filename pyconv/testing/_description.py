"""Checks of what an operator says about itself."""

from __future__ import annotations

from inspect import Parameter, Signature, getdoc, signature
from typing import TYPE_CHECKING, Any

from pyconv import _plugins
from pyconv.testing._call import Call
from pyconv.testing._check import CAPABILITIES, check
from pyconv.testing._compare import fail, named, require
from pyconv.testing._suite import Suite, bfloat16

if TYPE_CHECKING:
    from pyconv.operator import Operator

# How a call runs, as opposed to what it computes.
RUNTIME = ("out", "threads", "max_workspace")

# Capabilities that are a parameter, and the value that means "as usual".
_PARAMETERS = {
    "layout": "channels_first",
    "algorithm": "auto",
    "out": None,
    "threads": None,
    "max_workspace": None,
}

# More elements than this make a case that everybody has to wait for.
_LARGE = 2**20


class Description(Suite):
    """Metadata, signature, documentation, cases and capabilities."""

    @check()
    def test_metadata(self, op: Operator) -> None:
        """The registry and the tools need a name, a summary, aliases, a URL and algorithms."""
        try:
            _plugins.check_operator(op)
        except (TypeError, ValueError) as error:
            fail(str(error), error)
        summary = op.summary.strip()
        require(summary and "\n" not in summary, f"the summary is not one line: {op.summary!r}")
        url: Any = op.url
        require(op.name not in op.aliases, f"the name {op.name!r} is also an alias")
        require(len(set(op.aliases)) == len(op.aliases), f"aliases repeat: {op.aliases}")
        require(
            isinstance(url, str) and url.partition("://")[0] in ("", "http", "https"),
            f"the url is neither empty nor a web address: {url!r}",
        )
        algorithms: Any = op.algorithms
        require(
            isinstance(algorithms, tuple) and all(isinstance(a, str) for a in algorithms),
            f"algorithms is not a tuple of str: {algorithms!r}",
        )
        require(
            {"auto", "direct"} <= set(algorithms) and len(set(algorithms)) == len(algorithms),
            f"algorithms must have 'auto', 'direct', and nothing twice: {algorithms}",
        )

    @check()
    def test_signature(self, op: Operator) -> None:
        """Arrays come first, then keyword parameters, by the names the contract gives them."""
        require(isinstance(op.signature, Signature), f"signature is {op.signature!r}")
        require(signature(op) == op.signature, "inspect.signature(op) is not op.signature")
        parameters = op.signature.parameters
        arrays = [n for n, p in parameters.items() if p.kind is not Parameter.KEYWORD_ONLY]
        arrays += [n for n in op.optional if n in parameters and n not in arrays]
        require(
            tuple(arrays) == tuple(op.array_names),
            f"the signature has the arrays {arrays}, array_names is {op.array_names}",
        )
        require(arrays and arrays[0] == "x", f"the first array is not x: {arrays}")
        for name in op.optional:
            require(name in arrays, f"optional has {name!r}, which is no array of {arrays}")
            require(parameters[name].default is None, f"the default of {name} is not None")
        for name in arrays:
            parameter = parameters[name]
            require(
                name in op.optional or parameter.default is Parameter.empty,
                f"{name} has a default but is not in optional",
            )
        require(
            op.per_call[:1] == ("x",) and set(op.per_call) <= set(arrays),
            f"per_call must begin with x and have arrays only: {op.per_call}",
        )
        unknown = [n for n in getattr(op, "constants", ()) if n not in arrays]
        require(not unknown, f"constants has {unknown}, which are no arrays of {arrays}")
        for name, default in _PARAMETERS.items():
            if name in parameters:
                found = parameters[name].default
                require(found == default, f"{name} has the default {found!r}, not {default!r}")

    @check()
    def test_documentation(self, op: Operator) -> None:
        """Help shows the operator's docstring, so that has to name every argument."""
        text = getdoc(op) or ""
        missing = [name for name in op.signature.parameters if not named(name, text)]
        require(not missing, f"the docstring does not mention {', '.join(missing)}")

    @check()
    def test_cases(self, op: Operator) -> None:
        """Tests, benchmarks and documentation run the example calls."""
        cases, again = list(self.cases(op)), list(self.cases(op))
        require(cases, "there is no case")
        require(cases == again, "cases() yields other cases the second time")
        names = [case.name for case in cases]
        require(len(set(names)) == len(names), f"two cases have one name: {names}")
        keywords = set(op.signature.parameters) - set(op.array_names) - set(RUNTIME)
        for case in cases:
            where = f"case {case.name!r}"
            unknown = set(case.shapes) - set(op.array_names)
            require(not unknown, f"{where} has shapes for {unknown}, which are no arrays")
            missing = [
                n for n in op.array_names if case.shapes.get(n) is None and n not in op.optional
            ]
            require(not missing, f"{where} lacks the shape of {', '.join(missing)}")
            unknown = set(case.params) - keywords
            require(not unknown, f"{where} has {unknown}, which are no parameters")

        def examine(call: Call) -> None:
            elements = sum(array.size for array in call.flat().values())
            require(0 < elements < _LARGE, f"it has {elements} elements: not an example")
            require(call.exact.size, "its result is empty")

        self.each(self.calls(op), examine)

    @check()
    def test_capabilities(self, op: Operator) -> None:
        """What is declared is there, and what is not is refused, so nothing goes unchecked."""
        declared = self._capabilities(op)
        unknown = declared - set(CAPABILITIES)
        require(not unknown, f"no such capability: {', '.join(sorted(unknown))}")
        for name in _PARAMETERS:
            there = name in op.signature.parameters
            if there != (name in declared):
                state = "is" if there else "is not"
                fail(f"{name!r} {state} a parameter, but the capabilities say otherwise")
        for name, attempt in _ATTEMPTS.items():
            if name not in declared:
                self._expect_refusal(op, name, attempt)

    def _expect_refusal(self, op: Operator, name: str, attempt: Any) -> None:
        for call in self.calls(op, "float32"):
            try:
                done = attempt(call)
            except (TypeError, ValueError, NotImplementedError):
                continue
            if done:
                fail(f"it can do {name!r}, which no check looks at: add it to the capabilities")


def _try_batch(call: Call) -> bool:
    return call.batched


def _try_single(call: Call) -> bool:
    if call.batched:
        call.sliced(0).forward()
    return call.batched


def _try_bfloat16(call: Call) -> bool:
    dtype = bfloat16()
    return dtype is not None and bool(call.forward(call.cast(dtype)).shape)


_ATTEMPTS = {
    "backward": lambda call: bool(call.backward()),
    "plan": lambda call: bool(call.plan()),
    "batch": _try_batch,
    "unbatched": _try_single,
    "float16": lambda call: bool(call.forward(call.cast("float16")).shape),
    "bfloat16": _try_bfloat16,
}
