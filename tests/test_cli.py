"""The command line, in-process; a few runs in a process of their own for the exit status."""

import json
import subprocess
import sys

import numpy as np
import pytest

import pyconv
import pyconv.testing
from pyconv.cli import kernels, main
from pyconv.cli.commands.run import split_parameters
from pyconv.cli.images import rescaled

image_module = pytest.importorskip("PIL.Image")

BUILTINS = {
    "standard",
    "pointwise",
    "grouped",
    "depthwise",
    "depthwise_separable",
    "spatially_separable",
    "dilated",
    "transposed",
    "deformable",
    "sampled",
}


class Borrowed:
    """Another operator under a name of its own, as a plugin may bring it."""

    def __init__(self, name, operator, scale=1.0):
        self.name, self.operator, self.scale = name, operator, scale
        self.aliases, self.summary = (), "Borrowed [for a test]"

    def __getattr__(self, attribute):
        return getattr(self.operator, attribute)

    def __call__(self, *arrays, **params):
        return self.operator(*arrays, **params) * np.float32(self.scale)


@pytest.fixture
def registered():
    names = []

    def register(operator):
        pyconv.register(operator)
        names.append(operator.name)
        return operator

    yield register
    for name in names:
        pyconv.unregister(name)


@pytest.fixture
def broken_plugin(tmp_path, monkeypatch):
    info = tmp_path / "site" / "pyconv_broken-1.2.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: pyconv-broken\nVersion: 1.2\n")
    (info / "entry_points.txt").write_text("[pyconv.operators]\nbrokenop = no_such_module:op\n")
    monkeypatch.syspath_prepend(str(info.parent))
    pyconv.refresh()
    yield "brokenop"
    monkeypatch.undo()
    pyconv.refresh()


@pytest.fixture
def photo(tmp_path):
    """A small colour image: a gradient in each direction and a bright square."""
    pixels = np.zeros((24, 31, 3), np.uint8)
    pixels[..., 0] = np.arange(31) * 8
    pixels[..., 1] = np.arange(24)[:, None] * 10
    pixels[8:14, 10:20] = 250
    path = tmp_path / "photo.png"
    image_module.fromarray(pixels).save(path)
    return path


def run(capsys, *argv):
    """Return the exit status, stdout and stderr of a command."""
    status = main([str(word) for word in argv])
    captured = capsys.readouterr()
    return status, captured.out, captured.err


def fails(capsys, status, *argv):
    """Check that a command fails as it should, and return its message."""
    got, _, err = run(capsys, *argv)
    assert got == status
    assert err.startswith("pyconv: error: ")
    assert err.count("\n") == 1
    assert "Traceback" not in err
    return err


def pixels(path):
    with image_module.open(path) as picture:
        return np.asarray(picture)


# --- list, show, config


def test_list_names_every_operator_and_where_it_comes_from(capsys, registered):
    registered(Borrowed("mine", pyconv.get("standard")))
    status, out, _ = run(capsys, "list")
    assert status == 0
    lines = {line.split()[0]: line for line in out.splitlines()}
    assert lines.keys() >= BUILTINS | {"mine"}
    assert "pyconv-ops" in lines["dilated"]
    assert "atrous" in lines["dilated"]
    assert "this process" in lines["mine"]
    assert "Borrowed [for a test]" in lines["mine"]


def test_list_shows_broken_plugins_with_their_error(capsys, broken_plugin):
    status, out, _ = run(capsys, "list")
    (line,) = [line for line in out.splitlines() if line.startswith(broken_plugin)]
    assert status == 0
    assert "pyconv-broken 1.2" in line
    assert "broken: ModuleNotFoundError" in line


def test_list_json(capsys, broken_plugin):
    status, out, _ = run(capsys, "list", "--json")
    entries = {entry["name"]: entry for entry in json.loads(out)}
    assert status == 0
    assert entries.keys() >= BUILTINS | {broken_plugin}
    assert entries["standard"]["aliases"] == ["conv"]
    assert entries["standard"]["error"] is None
    assert entries[broken_plugin]["status"] == "broken"


@pytest.mark.parametrize("name", sorted(BUILTINS))
def test_show(capsys, name):
    op = pyconv.get(name)
    status, out, _ = run(capsys, "show", name)
    assert status == 0
    assert out.startswith(f"{name}: {op.summary}")
    for word in (*op.array_names, *op.algorithms, *op.signature.parameters):
        assert word in out


def test_show_json(capsys):
    status, out, _ = run(capsys, "show", "atrous", "--json")
    facts = json.loads(out)
    assert status == 0
    assert facts["name"] == "dilated"
    arrays = {array["name"]: array for array in facts["arrays"]}
    assert [name for name, array in arrays.items() if array["optional"]] == ["bias"]
    assert "(O, C/groups, *k)" in arrays["weight"]["type"]
    parameters = {parameter["name"]: parameter for parameter in facts["parameters"]}
    assert parameters["dilation"]["required"]
    assert parameters["stride"]["default"] == 1
    assert all(parameter["meaning"] for parameter in parameters.values())
    assert "subsample" in facts["algorithms"]
    assert all(case["macs"] >= case["macs_valid"] >= 0 for case in facts["cases"])
    assert all(case["output_shape"] for case in facts["cases"])


def test_config(capsys):
    status, out, _ = run(capsys, "config")
    assert status == 0
    assert "threads" in out
    status, out, _ = run(capsys, "config", "--json")
    assert status == 0
    assert json.loads(out)["kernels"]["picked"]


def test_tables_are_drawn_on_a_terminal(capsys, monkeypatch, registered):
    pytest.importorskip("rich")
    registered(Borrowed("mine", pyconv.get("standard")))
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    monkeypatch.setenv("COLUMNS", "200")
    status, out, _ = run(capsys, "list")
    assert status == 0
    assert "─" in out
    assert "Borrowed [for a test]" in out  # no markup


def test_tables_are_plain_without_rich(capsys, monkeypatch):
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    monkeypatch.setattr("pyconv.cli.output._hinted", False)
    monkeypatch.setitem(sys.modules, "rich", None)
    status, out, err = run(capsys, "list")
    assert status == 0
    assert "deformable" in out
    assert err.count("\n") == 1
    assert 'pip install "pyconv-ops[cli]"' in err


# --- usage


def test_help_and_version(capsys):
    assert run(capsys)[0] == 0
    status, out, _ = run(capsys, "--version")
    assert (status, out.split()[0]) == (0, "pyconv")
    for command in ("list", "show", "run", "check", "bench", "config", "demo", "new-plugin"):
        status, out, _ = run(capsys, command, "--help")
        assert status == 0
        assert f"pyconv {command}" in out


@pytest.mark.parametrize(
    "argv",
    [
        ["nonsense"],
        ["list", "--nonsense"],
        ["list", "more"],
        ["show"],
        ["run", "standard"],
        ["check"],
        ["check", "standard", "--only", "valus"],
        ["check", "standard", "--suite", "nonsense"],
        ["check", "standard", "--suite", "no/such/file.py:Suite"],
        ["check", "standard", "--suite", "pyconv.testing:Call"],
        ["demo", "--threads", "0"],
        ["demo", "--threads", "two"],
        ["demo", "-o", "picture.xyz"],
    ],
)
def test_bad_usage(capsys, argv):
    if argv[0] == "demo":
        pytest.importorskip("matplotlib")
    fails(capsys, 2, *argv)


def test_unknown_operator_is_bad_usage(capsys, photo):
    assert "dilated" in fails(capsys, 2, "show", "dilatd")
    assert "dilated" in fails(capsys, 2, "run", "dilatd", photo)
    assert "dilated" in fails(capsys, 2, "check", "standard", "dilatd")


def test_broken_plugin_is_a_failure(capsys, broken_plugin):
    assert "pyconv-broken" in fails(capsys, 1, "show", broken_plugin)
    assert "pyconv-broken" in fails(capsys, 1, "check", broken_plugin)


def test_unexpected_errors_have_no_traceback_unless_asked_for(capsys, monkeypatch):
    def fail(*args, **kwargs):
        raise ZeroDivisionError("by\nzero")

    monkeypatch.setattr(pyconv, "available", fail)
    assert "ZeroDivisionError: by zero" in fails(capsys, 1, "list")
    monkeypatch.setenv("PYCONV_TRACEBACK", "1")
    assert "Traceback" in run(capsys, "list")[2]


@pytest.mark.parametrize(
    ("argv", "status"), [(["list"], 0), (["show", "standard", "--json"], 0), (["show", "x"], 2)]
)
def test_exit_status_of_a_process(argv, status):
    done = subprocess.run(
        [sys.executable, "-m", "pyconv.cli", *argv], capture_output=True, text=True, check=False
    )
    assert done.returncode == status
    assert bool(done.stdout) == (status == 0)
    assert done.stderr.count("\n") == (status != 0)


def test_a_closed_pipe_is_no_error_message():
    with subprocess.Popen(
        [sys.executable, "-m", "pyconv.cli", "list", "--json"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as process:
        process.stdout.close()
        assert process.stderr.read() == b""


# --- check


def test_check(capsys):
    only = ["--only", "metadata, output_shape", "--only", "metadata"]
    status, out, err = run(capsys, "check", "pointwise", "1x1", "dilated", *only)
    assert (status, err) == (0, "")
    rows = [line.split()[:5] for line in out.splitlines()]
    assert rows == [
        ["operator", "passed", "failed", "expected", "skipped"],
        ["pointwise", "2", "0", "0", "0"],
        ["dilated", "2", "0", "0", "0"],
    ]


def test_check_that_fails(capsys, registered):
    registered(Borrowed("mine", pyconv.get("pointwise"), scale=1.01))
    status, out, err = run(capsys, "check", "mine", "--only", "values,output_shape")
    assert (status, err) == (1, "")
    assert out.splitlines()[1].split()[:3] == ["mine", "1", "1"]
    assert "mine: values: the float32 result is not within 32 unit roundoffs" in out
    assert "  case '" in out

    status, out, _ = run(capsys, "check", "mine", "--only", "output_shape,values", "--json")
    (found,) = json.loads(out)
    assert status == 1
    assert (found["operator"], found["passed"], found["failed"]) == ("mine", 1, 1)
    assert [check["name"] for check in found["checks"]] == ["output_shape", "values"]
    assert [check["status"] for check in found["checks"]] == ["passed", "failed"]
    assert found["checks"][1]["message"].startswith("mine: values: ")


def test_check_lists_what_it_did_and_what_there_is(capsys):
    _, out, _ = run(capsys, "check", "pointwise", "dilated", "--only", "metadata", "--verbose")
    assert out.count("metadata  passed") == 2
    assert pyconv.testing.OperatorSuite.checks["metadata"] in out
    status, out, _ = run(capsys, "check", "--list")
    assert status == 0
    assert [line.split()[0] for line in out.splitlines()[1:]] == list(
        pyconv.testing.OperatorSuite.checks
    )
    _, out, _ = run(capsys, "check", "--list", "--json")
    assert json.loads(out) == dict(pyconv.testing.OperatorSuite.checks)


def test_check_with_a_suite_of_ones_own(capsys, tmp_path):
    (tmp_path / "test_mine.py").write_text(
        """
from pyconv.testing import CAPABILITIES, OperatorSuite

class TestMine(OperatorSuite):
    capabilities = set(CAPABILITIES) - {"pickle"}
    expected_failures = {"metadata": "we thought so", "cases": "on purpose"}

    def cases(self, op):
        return []
"""
    )
    suite = f"{tmp_path / 'test_mine.py'}:TestMine"
    only = "metadata,pickle,cases"
    status, out, _ = run(capsys, "check", "pointwise", "--suite", suite, "--only", only)
    assert status == 1
    assert out.splitlines()[1].split()[:5] == ["pointwise", "0", "1", "1", "1"]
    assert "passes, but was expected to fail (we thought so)" in out
    assert "skipped: pickle: the operator lacks pickle" in out
    assert "expected: cases: on purpose" in out


def test_check_on_a_terminal(capsys, monkeypatch):
    pytest.importorskip("rich")
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    status, out, err = run(capsys, "check", "pointwise", "--only", "metadata")
    assert status == 0
    assert "─" in out
    assert "1/1" in err or "pointwise: metadata" in err


# --- run


@pytest.mark.parametrize("name", sorted(BUILTINS))
def test_run_shows_something_by_default(capsys, tmp_path, photo, name):
    out = tmp_path / "out.png"
    status, text, err = run(capsys, "run", name, photo, "-o", out)
    assert (status, err) == (0, "")
    assert text.startswith(f"{name}(")
    scale = 2 if name == "transposed" else 1
    assert pixels(out).shape == (24 * scale, 31 * scale, 3)
    assert pixels(out).std() > 1
    if name != "transposed":
        assert (pixels(out) != pixels(photo)).any()


@pytest.mark.parametrize("name", sorted(BUILTINS))
@pytest.mark.parametrize("dtype", ["float16", "float64"])
def test_run_identity_gives_the_image_back(capsys, tmp_path, photo, name, dtype):
    out = tmp_path / "out.png"
    options = {
        "pointwise": ["--mix", "identity"],
        "depthwise_separable": ["--mix", "identity", "--kernel", "identity"],
        "transposed": ["--kernel", "identity", "--stride", 1],
        "deformable": ["--offset", "zero"],
        "sampled": ["--offset", "zero"],
    }.get(name, ["--kernel", "identity"])
    status, _, err = run(capsys, "run", name, photo, "-o", out, *options, "--dtype", dtype)
    assert (status, err) == (0, "")
    np.testing.assert_array_equal(pixels(out), pixels(photo))


def test_run_any_operator_with_x_and_weight(capsys, tmp_path, photo, registered):
    registered(Borrowed("mine", pyconv.get("standard")))
    registered(Borrowed("mine_too", pyconv.get("pointwise")))
    for mine, ours in (("mine", "standard"), ("mine_too", "pointwise")):
        assert run(capsys, "run", mine, photo, "-o", tmp_path / "mine.npy")[0] == 0
        assert run(capsys, "run", ours, photo, "-o", tmp_path / "ours.npy")[0] == 0
        np.testing.assert_array_equal(
            np.load(tmp_path / "mine.npy"), np.load(tmp_path / "ours.npy")
        )


def test_run_passes_parameters_on(capsys, tmp_path, photo):
    out = tmp_path / "out.npy"
    options = ["--stride", "2,3", "--padding", "((1, 2), (0, 0))", "--flip=true"]
    status, text, _ = run(capsys, "run", *options, "conv", photo, "-o", out, "--kernel", "sobel-y")
    assert status == 0
    assert "stride=(2, 3)" in text
    x = pixels(photo).transpose(2, 0, 1)[None].astype(np.float32) / np.float32(255)
    weight = np.zeros((3, 3, 3, 3), np.float32)
    weight[range(3), range(3)] = kernels.kernel("sobel-y")
    expected = pyconv.get("standard").reference(
        x.astype(float), weight.astype(float), stride=(2, 3), padding=((1, 2), (0, 0)), flip=True
    )
    np.testing.assert_allclose(np.load(out), expected[0], atol=1e-6)


def test_run_channels_last(capsys, tmp_path, photo):
    first, last = tmp_path / "first.png", tmp_path / "last.png"
    for name in ("standard", "deformable"):
        assert run(capsys, "run", name, photo, "-o", first)[0] == 0
        assert run(capsys, "run", name, photo, "-o", last, "--layout", "channels_last")[0] == 0
        np.testing.assert_array_equal(pixels(first), pixels(last))


def test_run_leaves_parameter_errors_to_the_operator(capsys, photo):
    for name in ("standard", "depthwise", "spatially_separable", "transposed", "deformable"):
        message = fails(capsys, 2, "run", name, photo, "--stride", 0)
        assert f"{name}: stride must" in message
    assert "padding must" in fails(capsys, 2, "run", "standard", photo, "--padding", "sme")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--strid", "2"], ["no parameter 'strid'", "--stride"]),
        (["--out", "x"], ["-o"]),
        (["--stride"], ["--stride needs a value"]),
        (["--kernel", "sobl"], ["sobel-x"]),
        (["--kernel", "sobel-x", "--size", "4"], ["odd"]),
        (["--mix", "sepia"], ["no use for --mix"]),
        (["--offset", "swirl"], ["no use for --offset"]),
        (["--array", "bias"], ["NAME=FILE"]),
        (["--array", "mask=m.npy"], ["no array 'mask'", "bias"]),
        (["--rescale", "much"], ["clip"]),
        (["-o", "out.xyz"], [".xyz"]),
    ],
)
def test_run_bad_options(capsys, photo, options, words):
    message = fails(capsys, 2, "run", "standard", photo, *options)
    for word in words:
        assert word in message


def test_run_files_that_cannot_be_read_or_written(capsys, tmp_path, photo):
    assert "no such file" in fails(capsys, 1, "run", "standard", tmp_path / "none.png")
    text = tmp_path / "text.png"
    text.write_text("no image")
    assert "not an image" in fails(capsys, 1, "run", "standard", text)
    assert "none.npy" in fails(
        capsys, 1, "run", "standard", photo, "--kernel", tmp_path / "none.npy"
    )
    assert "cannot be written" in fails(
        capsys, 1, "run", "standard", photo, "-o", tmp_path / "none" / "out.png"
    )


def test_run_without_pillow(capsys, monkeypatch, photo):
    monkeypatch.setitem(sys.modules, "PIL.Image", None)
    assert 'pip install "pyconv-ops[cli]"' in fails(capsys, 1, "run", "standard", photo)


def test_run_default_output(capsys, tmp_path, photo, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert run(capsys, "run", "conv", photo)[0] == 0
    assert (tmp_path / "photo-standard.png").exists()


def test_run_arrays_from_files(capsys, tmp_path, photo):
    kernel, weight, bias = tmp_path / "kernel.npy", tmp_path / "weight.npy", tmp_path / "bias.npy"
    np.save(kernel, np.full((5, 3), 1 / 15))
    np.save(weight, np.full((1, 3, 1, 1), 1 / 3))
    np.save(bias, np.array([0.25]))
    out = tmp_path / "out.png"
    assert run(capsys, "run", "standard", photo, "--kernel", kernel, "-o", out)[0] == 0
    assert pixels(out).shape == (24, 31, 3)
    options = ["--kernel", weight, "--array", f"bias={bias}", "-o", out]
    assert run(capsys, "run", "standard", photo, *options)[0] == 0
    grey = np.clip(pixels(photo).mean(axis=2) / 255 + 0.25, 0, 1) * 255
    np.testing.assert_allclose(pixels(out), grey, atol=0.51)


def test_run_offset_from_a_file(capsys, tmp_path, photo):
    offset, out = tmp_path / "offset.npy", tmp_path / "out.png"
    np.save(offset, np.stack([np.zeros((24, 31)), np.full((24, 31), 2.0)]))
    assert run(capsys, "run", "deformable", photo, "--offset", offset, "-o", out)[0] == 0
    np.testing.assert_array_equal(pixels(out)[:, :-2], pixels(photo)[:, 2:])


@pytest.mark.parametrize("name", ["standard", "pointwise", "depthwise", "deformable"])
def test_run_grey_16_bits(capsys, tmp_path, name):
    deep = (np.arange(15 * 17, dtype=np.uint16) * 257).reshape(15, 17)
    path, out = tmp_path / "deep.png", tmp_path / "out.png"
    image_module.fromarray(deep).save(path)
    options = {"pointwise": ["--mix", "identity"], "deformable": ["--offset", "zero"]}
    args = options.get(name, ["--kernel", "identity"])
    status, _, err = run(capsys, "run", name, path, "-o", out, "--dtype", "float64", *args)
    assert (status, err) == (0, "")
    assert pixels(out).dtype.itemsize > 1
    np.testing.assert_array_equal(pixels(out), deep)


def test_run_keeps_alpha(capsys, tmp_path):
    rgba = np.zeros((12, 14, 4), np.uint8)
    rgba[..., :3] = 120
    rgba[:, :7, 3] = 255
    path, out, jpeg = tmp_path / "rgba.png", tmp_path / "out.png", tmp_path / "out.jpg"
    image_module.fromarray(rgba).save(path)
    assert run(capsys, "run", "standard", path, "--kernel", "identity", "-o", out)[0] == 0
    np.testing.assert_array_equal(pixels(out), rgba)
    assert run(capsys, "run", "standard", path, "--kernel", "identity", "-o", jpeg)[0] == 0
    assert pixels(jpeg).shape == (12, 14, 3)
    assert run(capsys, "run", "transposed", path, "-o", out)[0] == 0
    assert pixels(out).shape == (24, 28, 4)
    assert set(np.unique(pixels(out)[:, [0, -1], 3])) == {0, 255}


def test_run_palette_and_bilevel_images(capsys, tmp_path, photo):
    with image_module.open(photo) as picture:
        picture.convert("P").save(tmp_path / "palette.png")
        picture.convert("1").save(tmp_path / "bilevel.png")
        picture.convert("LA").save(tmp_path / "la.png")
    out = tmp_path / "out.png"
    for name, shape in (("palette", (24, 31, 3)), ("bilevel", (24, 31)), ("la", (24, 31, 2))):
        assert run(capsys, "run", "standard", tmp_path / f"{name}.png", "-o", out)[0] == 0
        assert pixels(out).shape == shape


def test_run_results_that_are_no_image(capsys, tmp_path, photo):
    weight, out = tmp_path / "weight.npy", tmp_path / "out.npy"
    np.save(weight, np.ones((5, 3, 2, 2)))
    options = ["run", "standard", photo, "--kernel", weight]
    assert "out.npy" in fails(capsys, 2, *options, "-o", tmp_path / "out.png")
    assert run(capsys, *options, "-o", out)[0] == 0
    assert np.load(out).shape == (5, 24, 31)


@pytest.mark.parametrize(
    ("argv", "expected"),
    [
        (["--a", "1"], {"a": 1}),
        (["--a", "-1"], {"a": -1}),
        (["--a=2,3"], {"a": (2, 3)}),
        (["--a", "same"], {"a": "same"}),
        (["--a", "'x y'"], {"a": "x y"}),
        (["--a", "none", "--b-c", "true"], {"a": None, "b_c": True}),
    ],
)
def test_parameters_are_read_like_python(argv, expected):
    assert split_parameters(["run", "x", "y.png", *argv]) == (["run", "x", "y.png"], expected)


def test_rescaled():
    y = np.array([-1.0, 0.0, 0.5, 3.0])
    np.testing.assert_array_equal(rescaled(y, "clip")[0], [0, 0, 0.5, 1])
    np.testing.assert_array_equal(rescaled(y, "minmax")[0], [0, 0.25, 0.375, 1])
    assert rescaled(y, "auto")[1] == "clip"
    signed, how = rescaled(np.array([-2.0, 0.0, 2.0, np.nan]), "auto")
    assert how == "signed"
    np.testing.assert_allclose(signed, [0, 0.5, 1, 0.5])
    for how in ("auto", "clip", "minmax", "signed"):
        assert rescaled(np.zeros((0, 3)), how)[0].shape == (0, 3)
        assert np.isfinite(rescaled(np.zeros(3), how)[0]).all()


def test_kernels():
    np.testing.assert_allclose(kernels.kernel("sobel-x"), np.outer([1, 2, 1], [-1, 0, 1]) / 4)
    np.testing.assert_allclose(kernels.kernel("laplacian"), [[0, 1, 0], [1, -4, 1], [0, 1, 0]])
    np.testing.assert_allclose(kernels.kernel("emboss"), [[-2, -1, 0], [-1, 1, 1], [0, 1, 2]])
    for name in kernels.KERNELS:
        for size in (3, 5, 9):
            made = kernels.kernel(name, size)
            assert made.shape == (size, size)
            # Edge kernels see nothing in a constant; bilinear spreads a pixel over its stride.
            total = {"laplacian": 0, "sobel-x": 0, "sobel-y": 0}.get(name, 1)
            if name != "bilinear":
                assert made.sum() == pytest.approx(total)
    column, row = kernels.separated("gaussian", kernels.kernel("gaussian"))
    np.testing.assert_allclose(np.outer(column, row), kernels.kernel("gaussian"), atol=1e-12)


# --- demo


def test_demo(capsys, tmp_path, registered, broken_plugin):
    pytest.importorskip("matplotlib")
    registered(Borrowed("mine", pyconv.get("standard")))
    out = tmp_path / "demo.png"
    status, text, err = run(capsys, "demo", "-o", out, "--json", "--threads", 1)
    assert (status, err) == (0, "")
    report = json.loads(text)
    assert report["threads"] == 1
    rows = report["results"]
    assert {row["operator"] for row in rows} == BUILTINS | {"mine", broken_plugin}
    for row in rows:
        assert row["status"] == ("broken" if row["operator"] == broken_plugin else "ok")
        if row["status"] == "ok":
            assert 0 <= row["error"] <= 1
            assert row["seconds"] > 0
            assert row["algorithm"] in pyconv.get(row["operator"]).algorithms
    full = [row["output_shape"] for row in rows if row["operator"] == "transposed"]
    assert full == [[1, 3, 1200, 1024]] * 2
    assert min(pixels(out).shape[:2]) > 1500


def test_demo_picture_has_no_text_outside_its_panel():
    pytest.importorskip("matplotlib")
    from pyconv.cli.demo import panels, sheet

    channels = {"edges": 2, "groups": 6, "rate1": 1, "rate2": 1, "rate4": 1}
    keys = {key for panel in panels.PANELS for key in panel.needs} - {"down"}  # one has failed
    pictures = {
        key: np.zeros((1, channels.get(key, 3), 600 * scale, 512 * scale))
        for key in keys
        for scale in [2 if key in ("up3", "up4") else 1]
    }
    figure = sheet.sheet(pictures, "the last line")
    figure.draw_without_rendering()
    cells = [axes.get_window_extent() for axes in figure.axes]
    assert len(cells) == len(panels.PANELS)
    # Title, text and, unless the operator has failed, caption.
    under = {cell.x0: cell for cell in cells}
    extents = [text.get_window_extent() for text in figure.texts]
    for extent in extents[4:]:  # after heading and footer, which are wider
        cell = under[min(under, key=lambda x0: abs(x0 - extent.x0))]
        assert extent.x1 < cell.x1 + 1
    assert len(extents) == 4 + 3 * len(cells) - 1
    words = [text.get_text() for axes in figure.axes for text in axes.texts]
    assert len([w for w in words if w.startswith("failed")]) == 1


def test_demo_tells_wrong_results(capsys, tmp_path, registered, monkeypatch):
    pytest.importorskip("matplotlib")
    registered(Borrowed("mine", pyconv.get("standard"), scale=1.01))
    # The others are as in the test above.
    monkeypatch.setattr("pyconv.cli.commands.demo.SCENES", ())
    monkeypatch.setattr("pyconv.cli.commands.demo.STAGES", {})
    everything = pyconv.available()
    monkeypatch.setattr(pyconv, "available", lambda: {"mine": everything["mine"]})
    status, text, _ = run(capsys, "demo", "-o", tmp_path / "demo.png")
    assert status == 1
    lines = [line for line in text.splitlines() if line.startswith("mine")]
    assert len(lines) == len(list(pyconv.get("mine").cases()))


def test_demo_without_matplotlib(capsys, monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    message = fails(capsys, 1, "demo", "-o", tmp_path / "demo.png")
    assert 'pip install "pyconv-ops[demo]"' in message


def test_demo_into_a_directory_that_is_not_there(capsys, tmp_path):
    pytest.importorskip("matplotlib")
    assert "no such directory" in fails(capsys, 1, "demo", "-o", tmp_path / "none" / "demo.png")
