"""The registry: what is found under a name, and what is not."""

import importlib
import importlib.metadata
import inspect
import os
import pickle
import subprocess
import sys
import textwrap
import threading
import types
import zipfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import FrozenInstanceError, replace
from pathlib import Path

import pytest

import pyconv
import pyconv.operators
from pyconv import PluginError, UnknownOperatorError, _plugins, registry

PACKAGE_PARENT = str(Path(pyconv.__file__).parents[1])
HOW_TO_GET_MORE = (
    "More come with packages that have an entry point in the group 'pyconv.operators': install one"
    " with pip and call pyconv.refresh(), or pass an operator of your own to pyconv.register()."
)


class FakeOperator:
    """All that the registry wants of an operator."""

    summary = "A summary."
    url = ""
    api_version = 1
    algorithms = ("auto", "direct")

    def __init__(self, name="fake", *aliases):
        self.name = name
        self.aliases = aliases

    def __call__(self, *args, **kwargs):
        raise AssertionError("nobody asked for a result")

    backward = plan = output_shape = cost = reference = cases = __call__

    def __repr__(self):
        return f"<{self.name}>"


@pytest.fixture(autouse=True)
def clean(monkeypatch, tmp_path):
    """A registry of its own, with two built-ins, first (alias one) and second, and no plugins."""
    folder = tmp_path / "built_ins"
    folder.mkdir()
    source = inspect.getsource(FakeOperator)
    (folder / "_helpers.py").write_text("raise AssertionError('this is no operator')")
    (folder / "first.py").write_text(f"{source}\nOPERATOR = FakeOperator('first', 'one')\n")
    (folder / "second.py").write_text(f"{source}\nOPERATOR = FakeOperator('second')\n")
    monkeypatch.setattr(pyconv.operators, "__path__", [str(folder)])
    monkeypatch.setattr(registry, "_registry", registry._Registry())
    monkeypatch.setattr(pyconv, "__version__", "1.2", raising=False)
    install(monkeypatch)
    yield
    for name in ("first", "second", "third"):
        sys.modules.pop(f"pyconv.operators.{name}", None)


def loaded_builtins():
    return sorted(n for n in ("first", "second") if f"pyconv.operators.{n}" in sys.modules)


# Fake entry points


def distribution(name, version="1.0"):
    return types.SimpleNamespace(name=name, version=version)


class FakeEntryPoint:
    group = "pyconv.operators"

    def __init__(self, name, value, load, dist="plug-in", version="1.0"):
        self.name = name
        self.value = value
        self.dist = distribution(dist, version)
        self.calls = 0
        self._load = load

    def load(self):
        self.calls += 1
        if isinstance(self._load, BaseException):
            raise self._load
        return self._load


def install(monkeypatch, *points):
    """Make `points` the installed entry points; return the list of times they were asked for."""
    calls = []

    def entry_points(*, group):
        assert group == "pyconv.operators"
        calls.append(group)
        return list(points)

    monkeypatch.setattr(importlib.metadata, "entry_points", entry_points)
    pyconv.refresh()
    return calls


def entry(name, value=None, load=..., **kwargs):
    load = FakeOperator(name) if load is ... else load
    return FakeEntryPoint(name, value or f"{name}_module:OP", load, **kwargs)


# Built-ins


def test_the_built_ins(monkeypatch):
    monkeypatch.undo()
    expected = {
        "standard": ("conv",),
        "pointwise": ("1x1",),
        "grouped": (),
        "depthwise": (),
        "depthwise_separable": ("separable",),
        "spatially_separable": (),
        "dilated": ("atrous",),
        "transposed": ("fractionally_strided",),
        "deformable": ("dcn",),
        "sampled": ("grid_sampled",),
    }
    monkeypatch.setattr(registry, "_registry", registry._Registry())
    install(monkeypatch)
    infos = pyconv.available()
    assert {name: info.aliases for name, info in infos.items()} == expected
    for name, info in infos.items():
        operator = pyconv.get(name)
        assert operator.name == name
        assert info.summary == operator.summary
        assert (info.status, info.error) == ("ok", None)
        assert info.distribution == "pyconv-ops"
        for alias in info.aliases:
            assert pyconv.get(alias) is operator
    assert pyconv.get("pyconv-ops:dilated") is pyconv.get("Pyconv_Ops:atrous")


def test_a_name_imports_only_its_module():
    assert pyconv.get("second").name == "second"
    assert loaded_builtins() == ["second"]
    assert pyconv.get("second") is pyconv.get("second") is pyconv.get("pyconv-ops:second")


def test_an_alias_is_looked_up_in_the_modules():
    assert pyconv.get("one") is pyconv.get("first")
    assert pyconv.get("pyconv-ops:one") is pyconv.get("PyConv.Ops:first")
    assert loaded_builtins() == ["first", "second"]


def test_built_ins_read_no_metadata(monkeypatch):
    calls = install(monkeypatch)
    pyconv.get("first"), pyconv.get("one"), pyconv.get("pyconv-ops:first")
    pyconv.register(FakeOperator())
    pyconv.get("fake")
    pyconv.unregister("fake")
    assert calls == []


def test_built_ins_are_found_in_a_zip_file(monkeypatch, tmp_path):
    archive = tmp_path / "zipped.zip"
    with zipfile.ZipFile(archive, "w") as file:
        for path in (tmp_path / "built_ins").glob("*.py"):
            file.write(path, f"operators/{path.name}")
    monkeypatch.setattr(pyconv.operators, "__path__", [f"{archive}/operators"])
    assert pyconv.operators.builtin_names() == ["first", "second"]
    assert pyconv.get("one").name == "first"


def test_a_built_in_that_cannot_be_imported(tmp_path):
    (tmp_path / "built_ins" / "third.py").write_text("raise ImportError('no kernels')")
    with pytest.raises(ImportError, match=r"^no kernels$"):
        pyconv.get("third")
    assert pyconv.get("one") is pyconv.get("first")
    info = pyconv.available()["third"]
    assert (info.status, info.error) == ("broken", "ImportError: no kernels")
    assert info.distribution == "pyconv-ops"
    # What was asked for may have been an alias of it.
    with pytest.raises(UnknownOperatorError, match=r"Known operators: .*third") as caught:
        pyconv.get("three")
    assert str(caught.value.__cause__) == "no kernels"


# Unknown names


def test_unknown_name(monkeypatch):
    install(monkeypatch, entry("plugged"), entry("twice", dist="A"), entry("twice", dist="B"))
    pyconv.register(FakeOperator("mine", "m"))
    with pytest.raises(UnknownOperatorError) as caught:
        pyconv.get("Frist")
    assert isinstance(caught.value, LookupError)
    assert caught.value.name == "Frist"
    assert caught.value.matches == ["first"]
    assert str(caught.value) == (
        "no operator is called 'Frist'; did you mean 'first'? Known operators: a:twice, b:twice,"
        f" first (one), mine (m), plugged, second. {HOW_TO_GET_MORE}"
    )
    assert caught.value.__cause__ is None


def test_unknown_name_without_matches():
    with pytest.raises(UnknownOperatorError) as caught:
        pyconv.get("%s{x}'")
    assert str(caught.value) == (
        'no operator is called "%s{x}\'". Known operators: first (one), second. ' + HOW_TO_GET_MORE
    )


@pytest.mark.parametrize(
    ("asked", "matches"),
    [("FIRST", ["first"]), ("ones", ["one"]), ("plug-in:plugd", ["plug-in:plugged"]), ("", [])],
)
def test_close_matches(monkeypatch, asked, matches):
    install(monkeypatch, entry("plugged"), entry("plugged", dist="other"))
    with pytest.raises(UnknownOperatorError) as caught:
        pyconv.get(asked)
    assert caught.value.matches[: len(matches)] == matches


@pytest.mark.parametrize("name", ["plug-in:nothing", "nobody:plugged", ":plugged", "plug-in:", ":"])
def test_unknown_qualified_name(monkeypatch, name):
    install(monkeypatch, entry("plugged"))
    with pytest.raises(UnknownOperatorError, match=f"^no operator is called '{name}'"):
        pyconv.get(name)


def test_unknown_operator_error_is_pickled_whole():
    error = UnknownOperatorError("frist", {"first": ("one",)})
    copy = pickle.loads(pickle.dumps(error))
    assert (str(copy), copy.name, copy.known) == (str(error), "frist", {"first": ("one",)})


@pytest.mark.parametrize("name", [None, 3, b"first", ["first"], FakeOperator()])
def test_a_name_is_a_str(name):
    with pytest.raises(TypeError, match=r"^get: name must be a str; got "):
        pyconv.get(name)


# register and unregister


def test_register():
    operator = FakeOperator("mine", "m")
    assert pyconv.register(operator) is operator
    assert pyconv.get("mine") is pyconv.get("m") is operator
    assert pyconv.available()["mine"] == registry.OperatorInfo(
        "mine", "A summary.", ("m",), distribution=None, version=None, status="ok", error=None
    )
    assert pyconv.unregister("mine") is None
    for name in ("mine", "m"):
        with pytest.raises(UnknownOperatorError):
            pyconv.get(name)
    assert "mine" not in pyconv.available()


@pytest.mark.parametrize(
    ("names", "taken", "kind"),
    [
        (("first",), "first", "built-in"),
        (("one",), "one", "built-in"),
        (("new", "one"), "one", "built-in"),
        (("mine",), "mine", "registered"),
        (("m",), "m", "registered"),
        (("new", "mine"), "mine", "registered"),
    ],
)
def test_register_needs_replace_to_shadow(names, taken, kind):
    mine = pyconv.register(FakeOperator("mine", "m"))
    before = {name: pyconv.get(name) for name in ("first", "one", "second", "mine", "m")}
    operator = FakeOperator(*names)
    with pytest.raises(ValueError, match="register") as caught:
        pyconv.register(operator)
    assert str(caught.value) == (
        "register: operator must have free names, or replace=True to shadow"
        f" a {kind} operator; got '{taken}'"
    )
    assert {name: pyconv.get(name) for name in before} == before

    pyconv.register(operator, replace=True)
    assert pyconv.get(operator.name) is operator
    pyconv.unregister(operator.name)
    assert {name: pyconv.get(name) for name in before} == before
    assert pyconv.get("mine") is mine


def test_registrations_of_one_name_are_undone_newest_first():
    builtin = pyconv.get("first")
    older = pyconv.register(FakeOperator("first"), replace=True)
    newer = pyconv.register(FakeOperator("first"), replace=True)
    assert pyconv.get("first") is newer
    assert pyconv.get("pyconv-ops:first") is builtin
    pyconv.unregister("first")
    assert pyconv.get("first") is older
    pyconv.unregister("first")
    assert pyconv.get("first") is builtin
    with pytest.raises(LookupError, match="unregister"):
        pyconv.unregister("first")


def test_names_go_before_aliases():
    aliased = pyconv.register(FakeOperator("mine", "second"), replace=True)
    assert pyconv.get("second") is aliased
    named = pyconv.register(FakeOperator("second"), replace=True)
    pyconv.register(FakeOperator("third", "second"), replace=True)
    assert pyconv.get("second") is named


def test_a_shadowed_built_in_is_listed_by_its_full_name():
    pyconv.register(FakeOperator("mine", "one"), replace=True)
    pyconv.register(FakeOperator("second"), replace=True)
    infos = pyconv.available()
    assert list(infos) == ["first", "mine", "pyconv-ops:second", "second"]
    assert infos["first"].aliases == ()
    assert infos["second"].distribution is None
    assert infos["pyconv-ops:second"].name == "pyconv-ops:second"
    assert pyconv.get("pyconv-ops:second") is not pyconv.get("second")


@pytest.mark.parametrize("name", ["first", "m", "nothing", 3])
def test_unregister_only_what_was_registered(name):
    with pytest.raises(LookupError) as caught:
        pyconv.unregister(name)
    assert str(caught.value) == (
        "unregister: name must be that of an operator registered in this process"
        f" (there is none); got {name!r}"
    )
    pyconv.register(FakeOperator("mine", "m"))
    with pytest.raises(LookupError, match=r"in this process \(mine\); got"):
        pyconv.unregister(name)


def changed(**attributes):
    operator = FakeOperator()
    for name, value in attributes.items():
        setattr(operator, name, value)
    return operator


class Incomplete(FakeOperator):
    backward = cost = None


BAD_OPERATORS = {
    "nothing": (None, TypeError, "an operator must be an instance of pyconv.Operator; got None,"),
    "function": (len, TypeError, "which has no name, summary, aliases, url, api_version"),
    "class": (FakeOperator, TypeError, "an operator must be an instance of pyconv.Operator; got"),
    "module": (os, TypeError, "an operator must be an instance of pyconv.Operator; got"),
    "incomplete": (Incomplete(), TypeError, "got <fake>, which has no backward, cost$"),
    "summary": (changed(summary=None), TypeError, "an operator's summary must be a str; got None"),
    "alias str": (changed(aliases="ab"), TypeError, "aliases must be a tuple of str; got 'ab'"),
    "alias type": (FakeOperator("fake", 3), TypeError, "name or alias must be a str; got 3"),
    "name type": (FakeOperator(None), TypeError, "name or alias must be a str; got None"),
    "empty": (FakeOperator(""), ValueError, "must be a word without a colon; got ''"),
    "colon": (FakeOperator("a:b"), ValueError, "must be a word without a colon; got 'a:b'"),
    "space": (FakeOperator("fake", " b"), ValueError, "must be a word without a colon; got ' b'"),
    "too new": (
        changed(api_version=2),
        ValueError,
        "<fake> is for version 2 of .* interface, and pyconv 1.2 has version 1: update pyconv$",
    ),
    "too old": (
        changed(api_version=0),
        ValueError,
        "<fake> is for version 0 of .* and pyconv 1.2 has version 1: update the operator$",
    ),
    "odd version": (changed(api_version="1"), ValueError, "is for version '1' of pyconv's"),
}


@pytest.mark.parametrize(("operator", "error", "text"), BAD_OPERATORS.values(), ids=BAD_OPERATORS)
def test_register_refuses_what_is_no_operator(operator, error, text):
    with pytest.raises(error, match=text):
        pyconv.register(operator, replace=True)
    assert list(pyconv.available()) == ["first", "second"]


# Entry points


def test_plugin(monkeypatch):
    plugged, other = entry("plugged", dist="Plug.In", version="3.1"), entry("other")
    calls = install(monkeypatch, plugged, other)
    operator = pyconv.get("plugged")
    assert operator is plugged._load
    assert operator is pyconv.get("plugged") is pyconv.get("plug-in:plugged")
    assert operator is pyconv.get("Plug__in:plugged")
    assert (plugged.calls, other.calls, len(calls)) == (1, 0, 1)
    assert pyconv.available()["plugged"] == registry.OperatorInfo(
        "plugged", "A summary.", (), distribution="Plug.In", version="3.1"
    )
    assert (plugged.calls, other.calls, len(calls)) == (1, 1, 1)


def test_a_plugin_may_be_a_function_or_a_class(monkeypatch):
    made = []

    def function():
        made.append(FakeOperator("made"))
        return made[-1]

    class WithName(FakeOperator):
        name = "of_a_class"
        aliases = ()

        def __init__(self):
            pass

    install(monkeypatch, entry("made", load=function), entry("of_a_class", load=WithName))
    assert pyconv.get("made") is pyconv.get("made")
    assert len(made) == 1
    assert isinstance(pyconv.get("of_a_class"), WithName)


def test_aliases_of_plugins_are_entry_points(monkeypatch):
    def load():
        return FakeOperator("plugged", "p", "unreachable", "one")

    install(monkeypatch, entry("plugged", "m:f", load), entry("p", "m:f", load))
    assert pyconv.get("p") is pyconv.get("plugged")
    with pytest.raises(UnknownOperatorError):
        pyconv.get("unreachable")
    assert list(pyconv.available()) == ["first", "plugged", "second"]
    assert pyconv.available()["plugged"].aliases == ("p",)
    assert pyconv.available()["first"].aliases == ("one",)


def test_an_alias_without_the_name_is_listed(monkeypatch):
    install(monkeypatch, entry("p", load=FakeOperator("plugged", "p")))
    assert pyconv.get("p").name == "plugged"
    assert list(pyconv.available()) == ["first", "p", "second"]


def test_the_entry_point_must_name_the_operator(monkeypatch):
    install(monkeypatch, entry("plugged", load=FakeOperator("another", "alias")))
    with pytest.raises(PluginError) as caught:
        pyconv.get("plugged")
    assert str(caught.value) == (
        "the operator 'plugged' of plug-in 1.0 cannot be used: ValueError: its name is 'another',"
        " and 'plugged' is no alias of it (entry point 'plugged_module:OP')"
    )
    assert pyconv.available()["plugged"].status == "broken"


def test_precedence(monkeypatch):
    second = entry("second", dist="Shadow")
    one = entry("one", load=FakeOperator("one"), dist="Shadow")
    install(monkeypatch, second, one, entry("plugged"))
    assert pyconv.get("second") is not second._load
    assert pyconv.get("one").name == "first"
    assert second.calls == one.calls == 0
    assert pyconv.get("shadow:second") is second._load
    assert pyconv.get("shadow:one") is one._load

    mine = pyconv.register(FakeOperator("plugged"))
    assert pyconv.get("plugged") is mine
    infos = pyconv.available()
    assert list(infos) == [
        "first",
        "plug-in:plugged",
        "plugged",
        "second",
        "shadow:one",
        "shadow:second",
    ]
    for key, info in infos.items():
        assert info.name == key
        assert info.status == "ok"
        assert pyconv.get(key) is not None


def test_two_distributions_with_one_name(monkeypatch):
    a = entry("twice", dist="Pack_A", version="1.0")
    b = entry("twice", load=FakeOperator("twice"), dist="pack-b", version="2.0")
    for points in ([a, b], [b, a]):
        install(monkeypatch, *points)
        with pytest.raises(PluginError) as caught:
            pyconv.get("twice")
        assert str(caught.value) == (
            "the operator 'twice' is offered by Pack_A 1.0 and pack-b 2.0: choose with"
            ' pyconv.get("pack-a:twice") or pyconv.get("pack-b:twice")'
        )
        assert a.calls == b.calls == 0
    assert pyconv.get("Pack-A:twice") is a._load
    assert pyconv.get("PACK.B:twice") is b._load
    infos = pyconv.available()
    assert list(infos) == ["first", "pack-a:twice", "pack-b:twice", "second", "twice"]
    assert infos["twice"].status == "ambiguous"
    assert infos["twice"].error == str(caught.value)
    assert infos["pack-b:twice"].version == "2.0"


def test_one_distribution_with_one_name_twice(monkeypatch):
    install(monkeypatch, entry("twice", "m:A"), entry("twice", "m:B"))
    for name in ("twice", "plug-in:twice"):
        with pytest.raises(PluginError, match=r"is offered by plug-in 1\.0 and plug-in 1\.0"):
            pyconv.get(name)


# Broken plugins


@pytest.mark.parametrize(
    "error",
    [ImportError("no module"), SystemExit("bye"), SyntaxError("bad"), RecursionError("deep")],
    ids=lambda error: type(error).__name__,
)
def test_broken_plugin(monkeypatch, error):
    broken, good = entry("broken", load=error), entry("good")
    install(monkeypatch, broken, good)
    assert pyconv.get("good") is good._load
    assert pyconv.get("first").name == "first"
    with pytest.raises(PluginError) as caught:
        pyconv.get("broken")
    assert caught.value.__cause__ is error
    text = f"{type(error).__name__}: {error}"
    assert str(caught.value) == (
        f"the operator 'broken' of plug-in 1.0 cannot be used: {text}"
        " (entry point 'broken_module:OP')"
    )
    infos = pyconv.available()
    assert list(infos) == ["broken", "first", "good", "second"]
    assert infos["broken"] == registry.OperatorInfo(
        "broken", "", (), "plug-in", "1.0", status="broken", error=text
    )
    assert infos["good"].status == "ok"


@pytest.mark.parametrize("error", [KeyboardInterrupt(), MemoryError()], ids=repr)
def test_these_are_not_the_plugin_s_fault(monkeypatch, error):
    install(monkeypatch, entry("broken", load=error))
    with pytest.raises(type(error)):
        pyconv.get("broken")


# A plugin's class is instantiated, and its function called.
GARBAGE = {name: case for name, case in BAD_OPERATORS.items() if name not in ("class", "function")}


@pytest.mark.parametrize(("value", "error", "text"), GARBAGE.values(), ids=GARBAGE)
def test_garbage_plugin(monkeypatch, value, error, text):
    install(monkeypatch, entry("fake", load=value), entry("made", load=lambda: value))
    for name in ("fake", "made"):
        with pytest.raises(PluginError, match=text.rstrip("$")) as caught:
            pyconv.get(name)
        assert type(caught.value.__cause__) is error
        assert pyconv.available()[name].status == "broken"


def test_a_function_that_needs_arguments(monkeypatch):
    install(monkeypatch, entry("needy", load=lambda argument: FakeOperator("needy")))
    with pytest.raises(PluginError, match="missing 1 required positional argument: 'argument'"):
        pyconv.get("needy")


def test_a_broken_plugin_may_recover(monkeypatch):
    broken = entry("late", load=ImportError("not yet"))
    install(monkeypatch, broken)
    with pytest.raises(PluginError):
        pyconv.get("late")
    broken._load = FakeOperator("late")
    assert pyconv.get("late") is broken._load


def test_a_plugin_that_asks_for_itself(monkeypatch):
    def ask():
        assert pyconv.available()["good"].status == "ok"
        return pyconv.get("selfish")

    install(monkeypatch, entry("selfish", load=ask), entry("good"))
    with pytest.raises(PluginError, match="it asks for itself while it is being loaded"):
        pyconv.get("selfish")
    assert pyconv.available()["selfish"].status == "broken"


def test_a_plugin_built_from_another_operator(monkeypatch):
    def build():
        assert pyconv.get("first").name == "first"
        assert pyconv.get("plugged").name == "plugged"
        return FakeOperator("built")

    install(monkeypatch, entry("built", load=build), entry("plugged"))
    assert pyconv.get("built").name == "built"


def test_an_entry_point_without_distribution(monkeypatch):
    point = entry("plugged")
    point.dist = None
    install(monkeypatch, point)
    assert pyconv.get("plugged") is point._load
    info = pyconv.available()["plugged"]
    assert (info.distribution, info.version) == ("unknown", None)


# available and refresh


def test_available_is_read_only_and_sorted():
    pyconv.register(FakeOperator("zero"))
    pyconv.register(FakeOperator("a"))
    infos = pyconv.available()
    assert list(infos) == ["a", "first", "second", "zero"]
    with pytest.raises(TypeError):
        infos["new"] = infos["a"]
    with pytest.raises(FrozenInstanceError):
        infos["a"].name = "b"
    assert infos["first"] == registry.OperatorInfo(
        "first", "A summary.", ("one",), "pyconv-ops", "1.2", "ok", None
    )
    assert replace(infos["a"], name="b").name == "b"


def test_refresh(monkeypatch):
    mine = pyconv.register(FakeOperator("mine"))
    points = [entry("old")]
    monkeypatch.setattr(importlib.metadata, "entry_points", lambda group: points)
    pyconv.refresh()
    old = pyconv.get("old")
    points[:] = [entry("new")]
    assert pyconv.get("old") is old
    with pytest.raises(UnknownOperatorError):
        pyconv.get("new")
    pyconv.refresh()
    assert pyconv.get("new") is points[0]._load
    with pytest.raises(UnknownOperatorError):
        pyconv.get("old")
    assert pyconv.get("mine") is mine


# Threads


def at_once(function, count=16):
    """Call `function(i)` in `count` threads that start together; return the results."""
    barrier = threading.Barrier(count)

    def run(i):
        barrier.wait(timeout=30)
        return function(i)

    with ThreadPoolExecutor(count) as pool:
        return list(pool.map(run, range(count), timeout=60))


def test_concurrent_get(monkeypatch):
    started = threading.Event()

    def slow():
        started.wait(0.05)
        return FakeOperator("slow")

    names = ["slow", "first", "one", "second", "plugged", "plug-in:slow"]
    for _ in range(5):
        calls = install(monkeypatch, entry("slow", load=slow), entry("plugged"))
        found = at_once(lambda i: (names[i % len(names)], pyconv.get(names[i % len(names)])))
        for name, operator in found:
            assert operator is pyconv.get(name)
        assert len({id(operator) for _, operator in found}) == 4
        assert len(calls) == 1


def test_concurrent_register():
    def register(i):
        operator = pyconv.register(FakeOperator(f"mine{i}", f"alias{i}"))
        assert pyconv.get(f"alias{i}") is operator
        pyconv.available()
        if i % 2:
            pyconv.unregister(operator.name)

    at_once(register)
    assert set(pyconv.available()) - {"first", "second"} == {f"mine{i}" for i in range(0, 16, 2)}


def test_one_of_many_gets_the_name():
    def register(i):
        try:
            return pyconv.register(FakeOperator("mine"))
        except ValueError:
            return None

    (winner,) = [operator for operator in at_once(register) if operator is not None]
    assert pyconv.get("mine") is winner


def test_no_stale_answer_is_kept(monkeypatch):
    """`register` while another thread is still loading what it shadows."""
    loading, go_on = threading.Event(), threading.Event()

    def slow():
        loading.set()
        assert go_on.wait(30)
        return FakeOperator("slow")

    install(monkeypatch, entry("slow", load=slow))
    with ThreadPoolExecutor(1) as pool:
        result = pool.submit(pyconv.get, "slow")
        assert loading.wait(30)
        mine = pyconv.register(FakeOperator("slow"))  # no lock is held while a plugin loads
        go_on.set()
        assert result.result(30) is not mine
    assert pyconv.get("slow") is mine


def test_no_deadlock_with_the_import_lock(tmp_path):
    """One thread gets a plugin whose module another thread is importing, which asks for it."""
    write_plugin(
        tmp_path,
        "Talkative",
        "talkative = talkative:OP",
        talkative="""
        import threading, time
        import pyconv
        time.sleep(0.3)
        pyconv.register(FakeOperator("from_the_import"), replace=True)
        pyconv.get("first"), pyconv.available()
        OP = FakeOperator("talkative")
        """,
    )
    code = """
        import os, threading
        import pyconv
        pyconv.operators.__path__ = [os.environ["BUILT_INS"]]
        def load():
            import talkative
        threads = [threading.Thread(target=load)]
        threads += [threading.Thread(target=pyconv.get, args=("talkative",)) for _ in range(4)]
        for thread in threads: thread.start()
        for thread in threads: thread.join()
        print(pyconv.get("talkative").name)
    """
    assert run_python(code, tmp_path) == ["talkative"]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_fork_while_the_lock_is_held(tmp_path):
    code = """
        import os, threading
        import pyconv
        from pyconv import registry
        pyconv.operators.__path__ = [os.environ["BUILT_INS"]]
        held, done = threading.Event(), threading.Event()
        def hold():
            with registry._registry.lock:
                held.set()
                done.wait()
        thread = threading.Thread(target=hold)
        thread.start()
        held.wait()
        if os.fork() == 0:
            pyconv.refresh()
            os._exit(7)
        done.set()
        thread.join()
        print(os.waitstatus_to_exitcode(os.wait()[1]))
    """
    assert run_python(code, tmp_path, "-Wignore::DeprecationWarning") == ["7"]


# Real distributions


def write_plugin(folder, distribution, entry_points, version="1.0", **modules):
    """Write a distribution as pip leaves it in site-packages."""
    info = folder / f"{distribution.replace('-', '_').lower()}-{version}.dist-info"
    info.mkdir(parents=True)
    metadata = f"Metadata-Version: 2.1\nName: {distribution}\nVersion: {version}\n"
    (info / "METADATA").write_text(metadata)
    (info / "entry_points.txt").write_text(f"[pyconv.operators]\n{entry_points}\n")
    for name, source in modules.items():
        path = folder.joinpath(*name.split("__")).with_suffix(".py")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(inspect.getsource(FakeOperator) + "\n" + textwrap.dedent(source))


def run_python(code, tmp_path, *options, path=None):
    """Run `code` where `tmp_path`, or `path`, is on sys.path; return the words it prints."""
    result = subprocess.run(
        [sys.executable, "-W", "error", *options, "-c", textwrap.dedent(code)],
        env={
            **os.environ,
            "PYTHONPATH": os.pathsep.join([PACKAGE_PARENT, str(path or tmp_path)]),
            "BUILT_INS": str(tmp_path / "built_ins"),
        },
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert result.returncode == 0, result.stderr
    return result.stdout.split()


@pytest.fixture
def site(monkeypatch, tmp_path):
    """A directory on sys.path, with the real entry_points."""
    monkeypatch.undo()
    monkeypatch.setattr(pyconv.operators, "__path__", [str(tmp_path / "built_ins")])
    monkeypatch.setattr(registry, "_registry", registry._Registry())
    folder = tmp_path / "site"
    folder.mkdir()
    monkeypatch.syspath_prepend(folder)
    before = set(sys.modules)
    yield folder
    for name in set(sys.modules) - before:
        del sys.modules[name]


def test_installed_distribution(site):
    write_plugin(
        site,
        "Dist_Fixture",
        "fixture = fixture_module:OP\nfix = fixture_module:OP\nfixture_broken = fixture_b:OP",
        version="2.5",
        fixture_module="OP = FakeOperator('fixture', 'fix')",
        fixture_b="import fixture_missing_dependency",
    )
    assert pyconv.get("fixture") is pyconv.get("fix") is pyconv.get("dist-fixture:fixture")
    assert "fixture_b" not in sys.modules
    infos = pyconv.available()
    assert "fix" not in infos
    assert infos["fixture"] == registry.OperatorInfo(
        "fixture", "A summary.", ("fix",), "Dist_Fixture", "2.5"
    )
    assert infos["fixture_broken"].status == "broken"
    assert infos["fixture_broken"].error == (
        "ModuleNotFoundError: No module named 'fixture_missing_dependency'"
    )
    with pytest.raises(PluginError) as caught:
        pyconv.get("fixture_broken")
    assert isinstance(caught.value.__cause__, ModuleNotFoundError)


def test_a_distribution_installed_while_running(site):
    with pytest.raises(UnknownOperatorError):
        pyconv.get("fixture")
    source = "OP = FakeOperator('fixture')"
    write_plugin(site, "dist-fixture", "fixture = fixture_module:OP", fixture_module=source)
    with pytest.raises(UnknownOperatorError):
        pyconv.get("fixture")
    pyconv.refresh()
    assert pyconv.get("fixture").name == "fixture"


def test_a_distribution_found_twice_counts_once(site, monkeypatch, tmp_path):
    """As with an editable install next to the build's own metadata: the first one counts."""
    for folder, version in ((site, "2.0"), (tmp_path / "later", "1.0")):
        source = "OP = FakeOperator('fixture')"
        point = "fixture = fixture_module:OP"
        write_plugin(folder, "dist-fixture", point, version=version, fixture_module=source)
    monkeypatch.setattr(sys, "path", [*sys.path, str(tmp_path / "later")])
    assert pyconv.get("fixture").name == "fixture"
    assert pyconv.available()["fixture"].version == "2.0"


def test_namespace_package(site):
    source = "OP = FakeOperator('fixture')"
    write_plugin(site, "space", "fixture = space.inner.ops:OP", space__inner__ops=source)
    assert pyconv.get("space:fixture").name == "fixture"


def test_zipped_distribution(site, monkeypatch, tmp_path):
    source = "OP = FakeOperator('fixture')"
    write_plugin(tmp_path / "raw", "zipped", "fixture = zipped_ops:OP", zipped_ops=source)
    archive = tmp_path / "zipped.zip"
    with zipfile.ZipFile(archive, "w") as file:
        for path in (tmp_path / "raw").rglob("*"):
            if path.is_file():
                file.write(path, path.relative_to(tmp_path / "raw"))
    monkeypatch.syspath_prepend(archive)
    assert pyconv.get("fixture").name == "fixture"
    assert pyconv.available()["fixture"].distribution == "zipped"


def test_an_unreadable_distribution_hides_no_other(site):
    source = "OP = FakeOperator('fixture')"
    write_plugin(site, "good", "fixture = fixture_module:OP", fixture_module=source)
    write_plugin(site, "bad", "this is no entry point")
    with pytest.warns(
        RuntimeWarning, match=r"cannot read the entry points of .*bad-1\.0\.dist-info"
    ):
        assert pyconv.get("fixture").name == "fixture"
    assert pyconv.available()["fixture"].distribution == "good"


def test_a_distribution_without_metadata(site):
    source = "OP = FakeOperator('fixture')"
    write_plugin(site, "bare", "fixture = fixture_module:OP", fixture_module=source)
    (site / "bare-1.0.dist-info" / "METADATA").unlink()
    assert pyconv.get("fixture").name == "fixture"
    assert pyconv.available()["fixture"].status == "ok"


def test_normalized():
    assert _plugins.normalized("Foo__Bar.-baz") == "foo-bar-baz"
