"""Openers of sequences in real engines."""

from fibcore.appliance.settings import Settings
from fibcore.stores.engine import EngineOpener
from tests.support.engines import Engine


def opener_at(url: str, sequence: str = "fibonacci") -> EngineOpener:
    opened = Settings.from_environ({"FIB_STORE": url, "FIB_SEQUENCE": sequence}).opener()
    assert isinstance(opened, EngineOpener)
    return opened


def opener(engine: Engine, sequence: str, port: int | None = None) -> EngineOpener:
    return opener_at(engine.url if port is None else engine.url_at(port), sequence)
