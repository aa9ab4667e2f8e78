"""docs/architecture.md names every room of the product, and no other."""

import re
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).parents[2]
PAGE: Final = (ROOT / "docs" / "architecture.md").read_text()
PRODUCT: Final = ("fibcore", "supervise", "web")


def rooms() -> set[str]:
    """Folders that hold code, and files beside them in a package's top folder."""
    found = {"supervise/"}
    for each in (ROOT / folder for folder in PRODUCT if folder != "supervise"):
        found |= {f"{each.name}/{path.parent.name}/" for path in each.glob("*/*.py")}
        sources = (path for path in each.glob("*.*") if path.suffix in (".py", ".pyx", ".h"))
        found |= {f"{each.name}/{path.name}" for path in sources if path.name != "__init__.py"}
    return found


def test_the_page_names_every_room() -> None:
    section = PAGE[PAGE.index("## The layers") : PAGE.index("## The path of a step")]
    assert rooms() - set(re.findall(r"`([\w/.]+)`", section)) == set()


def test_every_file_named_on_the_page_exists() -> None:
    named = re.findall(
        r"`((?:fibcore|web|supervise|tests|deploy|docs|bench)/[\w/.]*)`( \(new\))?", PAGE
    )
    assert len(named) > 40
    assert [path for path, new in named if not new and not (ROOT / path).exists()] == []
