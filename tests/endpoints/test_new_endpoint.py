"""Each endpoint is complete: a row, a description, documentation, a link, and a test."""

import importlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import ModuleType
from typing import Final

import web.endpoints
from web.endpoints.openapi import document
from web.endpoints.table import TABLE
from web.http.routing import Endpoint

ROOT: Final = Path(__file__).parents[2]
MODULES: Final = [
    importlib.import_module(f"web.endpoints.{path.stem}")
    for path in Path(web.endpoints.__path__[0]).glob("[!_]*.py")
]
PAGE: Final = "web/endpoints/page/index.html"


def texts() -> Mapping[str, str]:
    tests = (path.read_text() for path in Path(__file__).parent.rglob("test_*.py"))
    files = {name: (ROOT / name).read_text() for name in ("README.md", PAGE)}
    return {**files, "tests/endpoints": "\n".join(tests)}


def missing(
    rows: Iterable[Endpoint], modules: Iterable[ModuleType], texts: Mapping[str, str]
) -> list[str]:
    """A sentence for each thing that a row lacks."""
    rows = tuple(rows)
    found = [
        f"{name} of {module.__name__} is not among the rows in web/endpoints/table.py"
        for module in modules
        for name, each in vars(module).items()
        if isinstance(each, Endpoint) and each not in rows
    ]
    for row in rows:
        try:
            document([row])
        except ValueError as error:
            found.append(str(error))
        path = row.path.partition("{")[0]
        if f"`GET {row.path}`" not in texts["README.md"]:
            found.append(f"{row.path} has no row in README.md's table of requests")
        is_linked = row.steps or path != row.path or f'href="{path[1:]}"' in texts[PAGE]
        if not is_linked:
            found.append(f"{row.path} has no link in {PAGE}")
        if f'"{path}' not in texts["tests/endpoints"]:
            found.append(f"{row.path} has no test in tests/endpoints")
    return found


def test_every_endpoint_is_complete() -> None:
    assert missing(TABLE.rows, MODULES, texts()) == []
