"""A conformance kit, which tells whether an operator keeps the contract.

Every built-in operator passes `OperatorSuite`, and so should a plugin's. With pytest, subclass it:

.. code-block:: python

    import pytest
    from my_package import OPERATOR
    from pyconv.testing import OperatorSuite


    class TestMyOperator(OperatorSuite):
        @pytest.fixture
        def op(self):
            return OPERATOR

Without pytest, call `check_operator`:

>>> from pyconv.testing import check_operator
>>> results = check_operator("pointwise")
>>> [str(result) for result in results if result.status == "failed"]
[]

The suite looks at an operator from outside: it makes the calls of ``op.cases()``, and others
derived from them, and compares them with ``op.reference`` and with one another.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING

from pyconv.testing._call import Call
from pyconv.testing._check import CAPABILITIES, CheckResult, check, check_names
from pyconv.testing._compare import CheckFailure
from pyconv.testing._description import Description
from pyconv.testing._errors import Errors
from pyconv.testing._gradients import Gradients
from pyconv.testing._inputs import Inputs
from pyconv.testing._plans import Plans
from pyconv.testing._promises import Promises
from pyconv.testing._suite import Suite
from pyconv.testing._values import Values

if TYPE_CHECKING:
    from pyconv.operator import Operator

__all__ = [
    "CAPABILITIES",
    "Call",
    "CheckFailure",
    "CheckResult",
    "OperatorSuite",
    "check",
    "check_operator",
    "iter_checks",
]


class OperatorSuite(Description, Values, Gradients, Promises, Inputs, Errors, Plans):
    """Tests of one operator, to subclass with an ``op`` fixture.

    Each method is a check; its docstring says what it asks for. A failure names the smallest case
    that fails, the call, and what is wrong with it. The names of the checks are part of pyconv's
    interface: they are not changed lightly, and tools may rely on them.

    Attributes
    ----------
    capabilities : collection of str, optional
        What the operator can do, out of `pyconv.testing.CAPABILITIES`. Checks that need something
        else are skipped, and say so; an operator that can do more than is declared fails the check
        ``capabilities``. By default ``op.capabilities`` if there is such an attribute, else all.
    expected_failures : mapping of str to str
        Reasons by check (``"values"``, not ``"test_values"``). These must fail: one that passes is
        a failure.
    images : tuple of str, optional
        The arrays that have a batch axis and a layout; ``op.per_call`` by default.
    constants : tuple of str, optional
        The arrays without a gradient; ``op.constants`` by default, or none.
    checks : mapping of str to str
        The checks and their reasons, in the order in which they run (read only).

    See Also
    --------
    check_operator : The same without pytest.
    check : Adds a check to a subclass.

    Examples
    --------
    Say that an operator has no gradients, and that something is known to be wrong with it:

    >>> import pytest
    >>> import pyconv
    >>> from pyconv.testing import CAPABILITIES, OperatorSuite
    >>> class TestOurs(OperatorSuite):
    ...     capabilities = set(CAPABILITIES) - {"backward"}
    ...     expected_failures = {"array_likes": "it takes lists as well"}
    ...
    ...     @pytest.fixture
    ...     def op(self):
    ...         return pyconv.get("ours")
    """


def check_operator(
    op: Operator | str,
    *,
    suite: type[Suite] = OperatorSuite,
    capabilities: Collection[str] | None = None,
    expected_failures: Mapping[str, str] | None = None,
    checks: Iterable[str] | None = None,
) -> list[CheckResult]:
    """Run the checks of a suite on an operator; this needs no pytest.

    Parameters
    ----------
    op : Operator or str
        The operator, or its name in the registry.
    suite : subclass of OperatorSuite
        The checks.
    capabilities, expected_failures
        Instead of the suite's, see `OperatorSuite`.
    checks : iterable of str, optional
        Names of the checks to run; all by default.

    Returns
    -------
    list of CheckResult
        One for each check. Nothing that an operator does wrong is raised.

    Raises
    ------
    ValueError
        For the name of a check or a capability that does not exist.
    LookupError
        If no operator is called `op`.

    See Also
    --------
    iter_checks : Yields each result as soon as it is there.

    Examples
    --------
    >>> from pyconv.testing import check_operator
    >>> for result in check_operator("dilated", checks=["metadata", "output_shape"]):
    ...     print(result)
    passed: metadata
    passed: output_shape
    """
    return list(
        iter_checks(
            op, suite=suite, capabilities=capabilities, expected_failures=expected_failures,
            checks=checks,
        )
    )  # fmt: skip


def iter_checks(
    op: Operator | str,
    *,
    suite: type[Suite] = OperatorSuite,
    capabilities: Collection[str] | None = None,
    expected_failures: Mapping[str, str] | None = None,
    checks: Iterable[str] | None = None,
) -> Iterator[CheckResult]:
    """Run the checks one by one, as `check_operator` does.

    Parameters
    ----------
    op, suite, capabilities, expected_failures, checks
        See `check_operator`.

    Yields
    ------
    CheckResult
        The result of the next check; ``suite.checks`` says how many there are to come.

    Examples
    --------
    >>> from pyconv.testing import iter_checks
    >>> next(iter_checks("dilated")).name
    'metadata'
    """
    from pyconv.registry import get

    instance = suite()
    if capabilities is not None:
        instance.capabilities = capabilities
    if expected_failures is not None:
        instance.expected_failures = expected_failures
    wanted = list(suite.checks) if checks is None else list(checks)
    named = [*wanted, *instance.expected_failures]
    check_names("check_operator", suite.checks, named, instance.capabilities)
    operator = get(op) if isinstance(op, str) else op
    return (instance.run(name, operator) for name in wanted)
