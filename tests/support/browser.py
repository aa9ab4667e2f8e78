"""How tests start Chromium."""

from typing import Final

CHROMIUM: Final = ("--no-sandbox", "--no-proxy-server", "--disable-gpu")
