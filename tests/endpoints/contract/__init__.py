"""The HTTP contract, sentence by sentence, against a real server; conftest.py says which."""

from tests.support.corpus import example
from web.endpoints.table import TABLE

PATHS = [row.path for row in TABLE.rows]
WITH_INDEX = [row.path for row in TABLE.rows if row.has_index]
NUMBERS = [path[1:] for path in WITH_INDEX]
READS = [path for path in WITH_INDEX if path != "/next"]
NO_STEP = [example(path) for path in PATHS if path != "/next"]
"""Requests that do not step."""
