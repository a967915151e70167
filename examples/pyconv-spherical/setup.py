"""Compile the sampler against the installed pyconv: Cython finds its ``kernels.pxd`` by itself."""

from Cython.Build import cythonize
from setuptools import Extension, setup

sampler = Extension(
    "pyconv_spherical._sampler",
    ["pyconv_spherical/_sampler.pyx"],
    extra_compile_args=["-O3", "-ffp-contract=off"],
)
setup(ext_modules=cythonize([sampler], build_dir="build"))
