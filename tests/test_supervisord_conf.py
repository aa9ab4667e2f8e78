"""supervisord.conf is the manual, so it must be right."""

import re
from dataclasses import fields
from pathlib import Path

from fibcore.settings import Settings

CONF = Path(__file__).parents[1] / "supervisord.conf"


def test_it_lists_every_setting_at_its_default() -> None:
    listed = re.findall(r"^; (FIB_\w+)=(.*)$", CONF.read_text(), re.MULTILINE)
    settings = [(each.metadata["variable"], each.metadata["default"]) for each in fields(Settings)]
    assert listed == settings
