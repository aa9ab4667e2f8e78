"""What documents show a user."""

import re
from pathlib import Path
from typing import Final

from tests.support.supervised import ROOT

README: Final = ROOT / "README.md"


DOCUMENTS: Final = [README, ROOT / "CONTRIBUTING.md", *sorted(ROOT.glob("docs/*.md"))]


def blocks(document: Path, language: str) -> list[str]:
    """What ``document`` has in ``language``."""
    return re.findall(rf"(?ms)^```{language}\n(.*?)^```$", document.read_text())


def block(document: Path, language: str) -> str:
    """The one block of ``document`` in ``language``."""
    (found,) = blocks(document, language)
    return found
