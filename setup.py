"""The extension modules; everything else about the package is in pyproject.toml."""

from Cython.Build import cythonize
from setuptools import Extension, setup

setup(
    ext_modules=cythonize(
        [
            Extension(
                "fibcore._sequence",
                ["fibcore/_sequence.pyx"],
                depends=["fibcore/_digits.h"],
                include_dirs=["fibcore"],
                extra_compile_args=["-O3"],
            )
        ],
        build_dir="build/cython",
    ),
)
