"""The extension modules; everything else about the package is in pyproject.toml."""

import shutil
import sysconfig
from pathlib import Path

from Cython.Build import cythonize
from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext


class BuildExtensions(build_ext):
    """Reports a missing compiler or header in one line, before the compiler fails."""

    def build_extensions(self):
        compiler = self.compiler.compiler[0]
        headers = Path(sysconfig.get_path("include"), "Python.h")
        for there, what, package in (
            (shutil.which(compiler), f"a C compiler ({compiler}) is", "gcc libc6-dev"),
            (headers.exists(), f"Python's headers ({headers}) are", "python3-dev"),
        ):
            if not there:
                raise SystemExit(
                    f"fibcore is not installed: {what} missing, and its core is C. "
                    f"On Debian: apt-get install {package}"
                )
        super().build_extensions()


CORE = Extension(
    "fibcore._sequence",
    ["fibcore/_sequence.pyx"],
    depends=["fibcore/_digits.h"],
    include_dirs=["fibcore"],
    extra_compile_args=["-O3"],
)
# Python that every answer or new head passes through, compiled unchanged, with C types from the
# .pxd files beside it.
TYPES = [str(path) for path in Path().glob("*/**/*.pxd")]
PYTHON = [
    Extension(name.replace("/", "."), [f"{name}.py"], depends=TYPES)
    for name in (
        "fibcore/idempotency_key",
        "web/http/answers",
        "web/http/heads",
        "web/http/parser",
    )
]
DIRECTIVES = {"language_level": 3, "annotation_typing": False, "auto_pickle": False}

setup(
    cmdclass={"build_ext": BuildExtensions},
    ext_modules=[
        *cythonize([CORE], build_dir="build/cython"),
        *cythonize(PYTHON, build_dir="build/cython", compiler_directives=DIRECTIVES),
    ],
)
