"""What tests of stores share."""

from contextlib import closing
from pathlib import Path

from fibcore.stores import sqlite_file


def index_on_disk(database: Path) -> int:
    """What a process would find that opened the database now."""
    with closing(sqlite_file.connect(database, mode="ro")) as connection:
        return sqlite_file.verify(connection, database)
