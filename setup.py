"""Build the compiled kernels; everything else about the project is in pyproject.toml.

Environment variables, all optional:

``PYCONV_NO_OPENMP=1``
    Build single-threaded kernels even where the compiler has OpenMP.
``PYCONV_DEBUG_KERNELS=1``
    Bounds checks in the Cython code, assertions and debug symbols in the C code.
``PYCONV_SANITIZE=1``
    The same, under the address and undefined-behaviour sanitizers.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import NoReturn

from setuptools import Extension, __version__, setup
from setuptools.command.build_ext import build_ext
from setuptools.modified import newer_group

ROOT = Path(__file__).parent
# Relative, with "/": setuptools refuses absolute sources and records these in the sdist.
KERNELS = Path("pyconv/_kernels")
GENERATED = Path("build/cython")

INSTALL_COMPILER = (
    "pyconv needs a C compiler: install gcc or clang (Debian and Ubuntu: apt install "
    "build-essential; Fedora: dnf install gcc; Alpine: apk add build-base; macOS: xcode-select "
    "--install)"
)
INSTALL_HEADERS = (
    "pyconv needs the headers of Python itself to build: install them (Debian and Ubuntu: apt "
    "install python3-dev; Fedora: dnf install python3-devel; Alpine: apk add python3-dev)"
)

# Preprocessed, not run: the answer must be right when cross-compiling too.
WHICH_COMPILER = """\
#if defined(__INTEL_COMPILER) || defined(__NVCOMPILER)
pyconv_compiler unsupported
#elif defined(__clang__)
pyconv_compiler clang
#elif defined(__GNUC__)
pyconv_compiler gcc
#else
pyconv_compiler unsupported
#endif
"""
SMALL_PROGRAM = """\
#include <stddef.h>
#include <stdlib.h>
#include <math.h>
double pyconv_probe(double x) { return sqrt(x) + (double)sizeof(size_t); }
"""
PYTHON_PROGRAM = "#include <Python.h>\nint pyconv_probe(void) { return Py_IsInitialized(); }\n"
OPENMP_PROGRAM = """\
#include <omp.h>
int pyconv_probe(int n) {
    int sum = 0;
    #pragma omp parallel for reduction(+ : sum) num_threads(2)
    for (int i = 0; i < n; i++) sum += omp_get_thread_num();
    return sum;
}
"""


def stop(sentence: str) -> NoReturn:
    """End the build with one sentence and no traceback."""
    raise SystemExit(f"error: {sentence}")


def switch(name: str) -> bool:
    """Whether the environment variable `name` is set to something other than nothing or 0."""
    return os.environ.get(name, "") not in ("", "0")


SANITIZE = switch("PYCONV_SANITIZE")
DEBUG = SANITIZE or switch("PYCONV_DEBUG_KERNELS")

DIRECTIVES = {
    "language_level": 3,
    "binding": True,
    "embedsignature": True,
    "cdivision": True,
    "wraparound": False,
    "boundscheck": DEBUG,
    "initializedcheck": DEBUG,
}


def compile_flags() -> list[str]:
    """Flags for gcc and clang; results must not depend on the build machine or on contraction."""
    flags = ["-std=c11", "-ffp-contract=off", "-fno-math-errno", "-fvisibility=hidden"]
    # Else where a function lies, and its speed with that, depends on what stands before it.
    flags += ["-falign-functions=64"]
    if DEBUG:
        flags += ["-O1", "-g", "-UNDEBUG", "-fno-omit-frame-pointer"]
    else:
        flags += ["-O3", "-g0"]  # Python's own flags ask for -g: half as long again to compile
    if SANITIZE:
        flags += ["-fsanitize=address,undefined"]
    return flags


def link_flags() -> list[str]:
    """Flags for the linker."""
    return ["-fsanitize=address,undefined"] if SANITIZE else []


def extensions() -> list[Extension]:
    """One extension for each .pyx; the C leaf kernels are linked into ``_cpu`` alone."""
    # foo.inc.c is a template that other sources include, not a source of its own.
    templates = {*KERNELS.glob("*.inc.c")}
    leaves = sorted(p.as_posix() for p in {*KERNELS.glob("*.c")} - templates)
    headers = sorted(
        p.as_posix() for p in {*KERNELS.glob("*.h"), *KERNELS.glob("*.pxd"), *templates}
    )
    found = []
    for pyx in sorted(KERNELS.glob("*.pyx")):
        own = leaves if pyx.stem == "_cpu" else []
        found.append(
            Extension(
                ".".join(pyx.with_suffix("").parts),
                sources=[pyx.as_posix(), *own],
                depends=headers,
                define_macros=[("NPY_NO_DEPRECATED_API", "NPY_1_7_API_VERSION")],
            )
        )
    return found


def take_leaves(extension: Extension) -> list[str]:
    """Make the leaf kernels among the sources dependencies, and return them."""
    leaves = [source for source in extension.sources if Path(source).name.startswith("leaf_")]
    extension.sources = [source for source in extension.sources if source not in leaves]
    extension.depends = [*extension.depends, *leaves]
    return leaves


class BuildKernels(build_ext):
    """Check the tools first, then turn .pyx into C outside the source tree, then compile."""

    def finalize_options(self) -> None:
        """Compile on every CPU unless told otherwise."""
        super().finalize_options()
        if self.parallel is None:
            self.parallel = os.cpu_count() or 1

    def build_extensions(self) -> None:
        """Build everything; `self.compiler` is configured by now."""
        import numpy

        self.check_compiler()
        openmp_compile, openmp_link, openmp = self.find_openmp()
        for extension in self.extensions:
            extension.include_dirs += [numpy.get_include(), KERNELS.as_posix()]
            extension.define_macros += [("PYCONV_OPENMP", str(openmp))]
            extension.extra_compile_args += compile_flags() + openmp_compile
            extension.extra_link_args += link_flags() + openmp_link
        settings, stamp = self.settings(), GENERATED / "settings.json"
        if not stamp.exists() or stamp.read_text() != settings:
            # File times alone would keep, say, unsanitized objects for a sanitized build.
            self.force = True
        # The C leaf kernels take half of the time of a build: side by side, and next to Cython. As
        # sources of an extension they would be compiled one after another, and after it.
        with ThreadPoolExecutor(self.parallel) as pool:
            compiled = [
                pool.map(partial(self.compile_leaf, extension), take_leaves(extension))
                for extension in self.extensions
            ]
            self.generate_c()
        for extension, objects in zip(self.extensions, compiled, strict=True):
            extension.extra_objects += objects
        super().build_extensions()
        stamp.write_text(settings)

    def check_compiler(self) -> None:
        """Stop with one sentence unless a gcc or clang, the C library and Python.h are there."""
        if not hasattr(self.compiler, "compiler_so"):
            stop(
                "pyconv builds with gcc or clang only, not with the "
                f"{self.compiler.compiler_type!r} compiler of this Python"
            )
        command = self.compiler.compiler_so
        try:
            named = self.compiler_says(WHICH_COMPILER, ["-E"])
        except OSError:
            stop(f"{INSTALL_COMPILER}; the one looked for, {command[0]!r}, is not there")
        if "pyconv_compiler gcc" not in named and "pyconv_compiler clang" not in named:
            stop(f"pyconv builds with gcc or clang only, which {command[0]!r} is not: set CC=gcc")
        if not self.builds(SMALL_PROGRAM):
            stop(f"{INSTALL_COMPILER}; {command[0]!r} is there but cannot build a small program")
        if not self.builds(PYTHON_PROGRAM):
            stop(INSTALL_HEADERS)

    def find_openmp(self) -> tuple[list[str], list[str], int]:
        """Compile flags, link flags and 1, or nothing and 0 where OpenMP does not work."""
        if switch("PYCONV_NO_OPENMP"):
            print("pyconv: built without OpenMP, single-threaded, as PYCONV_NO_OPENMP asks.")
            return [], [], 0
        ways = [(["-fopenmp"], ["-fopenmp"])]
        if sys.platform == "darwin":
            ways = [(["-Xpreprocessor", "-fopenmp"], ["-lomp"]), *ways]
        for compile_args, link_args in ways:
            if self.builds(OPENMP_PROGRAM, compile_args, link_args):
                return compile_args, link_args, 1
        print(
            "pyconv: built without OpenMP, single-threaded, because the compiler cannot build an "
            "OpenMP program (clang needs libomp: apt install libomp-dev, or brew install libomp)."
        )
        return [], [], 0

    def compiler_says(self, program: str, arguments: list[str]) -> str:
        """What the compiler prints for `program`; OSError when there is no such compiler."""
        with tempfile.TemporaryDirectory() as folder:
            source = Path(folder, "probe.c")
            source.write_text(program)
            command = [*self.compiler.compiler_so, *arguments, str(source)]
            return subprocess.run(command, capture_output=True, text=True, check=False).stdout

    def builds(
        self, program: str, compile_args: Sequence[str] = (), link_args: Sequence[str] = ()
    ) -> bool:
        """Whether `program` compiles and links to a shared object, as an extension does."""
        includes = [f"-I{path}" for path in self.compiler.include_dirs]
        libraries = [f"-L{path}" for path in self.compiler.library_dirs]
        with tempfile.TemporaryDirectory() as folder:
            source, obj, shared = (str(Path(folder, "probe" + end)) for end in (".c", ".o", ".so"))
            Path(source).write_text(program)
            compiling = [*self.compiler.compiler_so, *includes, *compile_args]
            linking = [*self.compiler.linker_so, obj, *libraries, *link_args]
            for step in ([*compiling, "-c", source, "-o", obj], [*linking, "-o", shared]):
                try:
                    subprocess.run(step, capture_output=True, check=True)
                except (OSError, subprocess.CalledProcessError):
                    return False
        return True

    def settings(self) -> str:
        """Everything besides the sources that the compiled modules depend on."""
        return json.dumps(
            {
                "compiler": self.compiler.compiler_so,
                "directives": DIRECTIVES,
                "flags": [[e.extra_compile_args, e.extra_link_args] for e in self.extensions],
                "python": sys.version,
            },
            indent=1,
        )

    def generate_c(self) -> None:
        """Run Cython; its output goes below build/ and the source tree stays clean."""
        from Cython.Build import cythonize

        generated = cythonize(
            [Extension(e.name, e.sources, depends=e.depends) for e in self.extensions],
            build_dir=GENERATED.as_posix(),
            compiler_directives=DIRECTIVES,
            force=self.force,
        )
        for extension, result in zip(self.extensions, generated, strict=True):
            extension.sources = result.sources

    def compile_leaf(self, extension: Extension, source: str) -> str:
        """Return the object file of a source, compiled unless it is up to date."""
        (target,) = self.compiler.object_filenames([source], output_dir=self.build_temp)
        if self.force or newer_group([source, *extension.depends], target):
            self.compiler.compile(
                [source],
                output_dir=self.build_temp,
                macros=extension.define_macros,
                include_dirs=extension.include_dirs,
                extra_postargs=extension.extra_compile_args,
            )
        return target


if int(__version__.split(".")[0]) < 77:
    stop(f"pyconv needs setuptools 77 or later to build, not {__version__}: pip install -U it")
os.chdir(ROOT)
setup(ext_modules=extensions(), cmdclass={"build_ext": BuildKernels})
