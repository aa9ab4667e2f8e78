"""Reads code blocks from the documents."""

import re
from pathlib import Path
from typing import Final

from tests.support.supervised import ROOT

README: Final = ROOT / "README.md"


DOCUMENTS: Final = [README, ROOT / "CONTRIBUTING.md", *sorted(ROOT.glob("docs/*.md"))]


def blocks(document: Path, language: str) -> list[str]:
    """Return the code blocks of ``document`` in ``language``."""
    return re.findall(rf"(?ms)^```{language}\n(.*?)^```$", document.read_text())


def block(document: Path, language: str) -> str:
    """Return the only code block of ``document`` in ``language``."""
    (found,) = blocks(document, language)
    return found
