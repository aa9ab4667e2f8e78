"""The extension modules; everything else about the package is in pyproject.toml."""

import shutil
import sysconfig
from pathlib import Path

from Cython.Build import cythonize
from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext


class BuildExtensions(build_ext):
    """Says what is missing, where it is; the compiler would say it in its own words."""

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
# What each step's answer goes through, and each head that has not come before: Python, compiled as
# it stands, with the types that stand beside it.
TYPES = [str(path) for path in Path("web/http").glob("*.pxd")]
PYTHON = [
    Extension(f"web.http.{name}", [f"web/http/{name}.py"], depends=TYPES)
    for name in ("answers", "heads", "parser")
]
AS_IT_STANDS = {"language_level": 3, "annotation_typing": False, "auto_pickle": False}

setup(
    cmdclass={"build_ext": BuildExtensions},
    ext_modules=[
        *cythonize([CORE], build_dir="build/cython"),
        *cythonize(PYTHON, build_dir="build/cython", compiler_directives=AS_IT_STANDS),
    ],
)
