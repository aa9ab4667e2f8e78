"""The database: its format, and how it is created, opened, verified and copied.

It is an SQLite database in WAL mode with one row that holds the index. ``application_id`` says
that the file is ours; a digest beside the index shows a damaged index, which SQLite itself,
whose pages carry no checksum, would not notice.
"""

import contextlib
import errno
import hashlib
import os
import resource
import sqlite3
import stat
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Final, Literal
from urllib.parse import quote
from zlib import crc32

from fibcore.problems import (
    DatabaseInvalidError,
    DatabaseMissingError,
    ForeignDatabaseError,
    LinkedDatabaseError,
    NoRightError,
    StoreBusyError,
    StoreNotThereError,
    StoreUnavailableError,
)
from fibcore.stores.files import backup_copy_path, high_water_mark_path, new_path, wal_path
from fibcore.stores.keys import DIGEST_SIZE, KeptKeys

APPLICATION_ID: Final = 0x46494243
"""``FIBC``. See https://sqlite.org/pragma.html#pragma_application_id."""

FORMAT: Final = 1
"""The version of this format, kept as ``user_version``."""

PAGE_SIZE: Final = 512
"""Bytes; the least that SQLite takes. A commit writes one page to the WAL, to change one row."""

BUSY_SECONDS: Final = 5.0
"""How long a connection waits for a lock of another one."""

SCHEMA: Final = """
CREATE TABLE sequence (
    id INTEGER PRIMARY KEY CHECK (id = 1),
    n INTEGER NOT NULL CHECK (n >= 0),
    digest BLOB NOT NULL
) STRICT
"""

KEYS_SCHEMA: Final = (
    "ALTER TABLE sequence ADD COLUMN dropped INTEGER NOT NULL DEFAULT 0",
    "ALTER TABLE sequence ADD COLUMN seal INTEGER NOT NULL DEFAULT 0",
    "CREATE TABLE keys (n INTEGER PRIMARY KEY, made BLOB NOT NULL, seal INTEGER NOT NULL) STRICT",
)
"""What a database needs for keys; one from before there were any gets it when it is opened.

``dropped`` is that of ``keys.KeptKeys``. An earlier version of this program steps such a database,
too, and knows nothing of keys: it leaves the seal of the row as it was, which shows that it has.
"""

KEYS_IN_A_PAGE: Final = 10
"""At least, where each has a row of its own."""

RESERVED_AT_ONCE: Final = 100
"""Pages: so a WAL that is moved into the file now and then holds them."""

MADE: Final = struct.Struct(f">{DIGEST_SIZE}sq")
"""A key in ``keys.made``: its digest, and the index of its step."""

# What can pass by itself, as against a file that a person must look at.
PASSING_ERRORS: Final = {
    sqlite3.SQLITE_FULL,
    sqlite3.SQLITE_IOERR,
    sqlite3.SQLITE_LOCKED,
    sqlite3.SQLITE_NOMEM,
    sqlite3.SQLITE_PROTOCOL,
}
PASSING_ERRNOS: Final = {
    errno.EDQUOT,
    errno.EFBIG,
    errno.EIO,
    errno.EMFILE,
    errno.ENFILE,
    errno.ENOLCK,
    errno.ENOMEM,
    errno.ENOSPC,
}


def index_digest(index: int) -> bytes:
    """The eight bytes that stand beside ``index`` in the row."""
    return hashlib.blake2b(b"fibcore index %d" % index, digest_size=8).digest()


def seal_of(index: int, what: bytes | int) -> int:
    """What stands beside ``dropped``, or the keys of a batch, in a row at ``index``."""
    return crc32(b"%d %b" % (index, what if isinstance(what, bytes) else b"%d" % what))


def connect(path: Path, mode: Literal["rw", "ro", "alone"] = "rw") -> sqlite3.Connection:
    """Open the existing database at ``path``, each statement a transaction of its own.

    It is never created. The connection may move between threads, used by one at a time. One in
    mode ``ro`` changes neither the database nor its WAL. One in mode ``alone`` doesn't even look
    for a WAL, and leaves nothing beside the file: for a copy that nobody writes to.

    Raises:
        DatabaseInvalidError, StoreUnavailableError: as the file's condition is.
    """
    with _explained(path):
        if not stat.S_ISREG(path.stat().st_mode):
            raise DatabaseInvalidError(path, "it is not a file")
        if path.is_symlink():
            # SQLite would keep the WAL beside the file that the link leads to, and we all else
            # beside the link, where it guards nothing against those who use the file itself.
            raise DatabaseInvalidError(path, f"it is a link to {path.resolve()}: name that")
        if mode == "rw" and path.stat().st_nlink > 1:
            # By its other name it has another WAL, another lock and another high-water mark: two
            # servers would step it. See https://sqlite.org/howtocorrupt.html, 2.5.
            raise LinkedDatabaseError(path, "it has another name (a hard link)")
        how = "mode=ro&immutable=1" if mode == "alone" else f"mode={mode}"
        return sqlite3.connect(
            f"file:{quote(str(path))}?{how}",
            uri=True,
            timeout=BUSY_SECONDS,
            isolation_level=None,
            check_same_thread=False,
        )


def create(path: Path, index: int = 0) -> None:
    """Create the database at ``path``, standing at ``index``: whole and durable, or not at all.

    The caller holds the writer's lock, or is alone with ``path`` for another reason.

    Raises:
        DatabaseInvalidError: there is something at ``path``, or what is left beside it shows that
            there was: a sequence never starts again at 0 because its file was lost.
        StoreUnavailableError: the disk is full or fails.
    """
    reject_remains(path)
    write(path, index)
    with _explained(path), contextlib.suppress(PermissionError):
        # The folder may be as new as the file.
        sync(path.parent.parent)


def reject_remains(path: Path) -> None:
    """Raise ``DatabaseMissingError`` if anything shows that there was a database at ``path``."""
    beside = (path, wal_path(path), high_water_mark_path(path), backup_copy_path(path))
    remains = tuple(each.name for each in beside if os.path.lexists(each))
    if remains:
        raise DatabaseMissingError(path, remains)


def write(path: Path, index: int) -> None:
    """Put a new database at ``index`` in the place of whatever is at ``path``, durably.

    What has been there is replaced in one step, or not at all. The caller holds the writer's
    lock, and has seen to the WAL of what is replaced: SQLite would take it for the new one's.

    Raises:
        StoreUnavailableError: the disk is full or fails.
    """
    new = new_path(path)
    with _explained(path):
        new.unlink(missing_ok=True)
        connection = sqlite3.connect(new, isolation_level=None)
        with contextlib.closing(connection):
            connection.execute("PRAGMA synchronous = full")
            connection.execute(f"PRAGMA page_size = {PAGE_SIZE}")
            connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
            connection.execute(f"PRAGMA user_version = {FORMAT}")
            connection.execute(SCHEMA)
            add_keys(connection)
            # Of what was before nothing is known here.
            row = (index, index_digest(index), index, seal_of(index, index))
            connection.execute("INSERT INTO sequence VALUES (1, ?, ?, ?, ?)", row)
            connection.execute("PRAGMA journal_mode = wal")
        _rename_durably(new, path)


def verify(connection: sqlite3.Connection, path: Path) -> int:
    """Check everything about the open database and return its index.

    Raises:
        DatabaseInvalidError: it is corrupt, foreign, or of a later format.
        StoreUnavailableError: it can't be read now.
    """
    with _explained(path):
        if path.stat().st_size <= 1:
            # SQLite takes it for a new database, and deletes the WAL beside it at the first look,
            # in mode ro as well. A file of one byte is as empty to it (see unixFileSize).
            raise DatabaseInvalidError(path, "it is empty")
        (application,) = connection.execute("PRAGMA application_id").fetchone()
        if application != APPLICATION_ID:
            raise ForeignDatabaseError(path, "another program made it")
        (version,) = connection.execute("PRAGMA user_version").fetchone()
        if version != FORMAT:
            raise ForeignDatabaseError(
                path, f"its format is {version}, and this program knows {FORMAT} alone"
            )
        (finding,) = connection.execute("PRAGMA integrity_check(1)").fetchone()
        if finding != "ok":
            raise DatabaseInvalidError(path, f"it is corrupt ({' '.join(finding.split())})")
        return read_index(connection, path)


def read_index(connection: sqlite3.Connection, path: Path) -> int:
    """Return the index in the open database, if it is as it was written.

    Raises:
        DatabaseInvalidError: the row is missing or damaged.
        StoreUnavailableError: it can't be read now.
    """
    with _explained(path):
        rows = connection.execute("SELECT n, digest FROM sequence").fetchall()
    if len(rows) != 1:
        raise DatabaseInvalidError(path, f"it holds {len(rows)} rows instead of one")
    ((index, digest),) = rows
    if not isinstance(index, int) or digest != index_digest(index):
        raise DatabaseInvalidError(path, "its index does not match the digest beside it")
    return index


def add_keys(connection: sqlite3.Connection) -> None:
    """Add to the open database what it needs for keys."""
    for each in KEYS_SCHEMA:
        connection.execute(each)


def prepare_keys(connection: sqlite3.Connection) -> int:
    """Prepare the open database for keys; return the index up to which some may be dropped."""
    columns = connection.execute("SELECT name FROM pragma_table_info('sequence')").fetchall()
    connection.execute("BEGIN IMMEDIATE")
    if ("seal",) not in columns:
        add_keys(connection)
    row = connection.execute("SELECT n, dropped, seal FROM sequence").fetchone()
    index, dropped, seal = row
    if seal != seal_of(index, dropped):
        # It has been stepped, or set, by a version that knows of no keys.
        connection.execute("DELETE FROM keys")
        dropped = index
    connection.execute("COMMIT")
    return int(dropped)


def read_keys(connection: sqlite3.Connection, path: Path, dropped: int, keep: int) -> KeptKeys:
    """Return the keys in the open database, after it has been given all the space for them.

    If some are damaged, those before them count as dropped, too.

    Args:
        connection: to the database.
        path: its path.
        dropped: as ``prepare_keys`` has returned it, or higher.
        keep: how many there may be.

    Raises:
        OSError, sqlite3.Error: there is no space for them. Steps without keys need none.
    """
    _reserve_keys(connection, path, keep)
    kept = KeptKeys(dropped)
    for index, made, seal in connection.execute("SELECT n, made, seal FROM keys ORDER BY n"):
        if seal == seal_of(index, made):
            kept.add(index, dict(MADE.iter_unpack(made)))
        else:
            (kept.dropped,) = connection.execute("SELECT n FROM sequence").fetchone()
    return kept


def _reserve_keys(connection: sqlite3.Connection, path: Path, keep: int) -> None:
    """Have the file hold all the pages that keys will take: on a full disk steps go on.

    The pages are written, moved from the WAL into the file, and freed there.
    """
    connection.execute("DELETE FROM keys WHERE n < 0")  # Left by one that was interrupted.
    (pages,) = connection.execute("PRAGMA page_count").fetchone()
    missing = keep * 5 // 4 // KEYS_IN_A_PAGE + RESERVED_AT_ONCE - pages
    if missing <= 0:
        return
    # Pages that are in the WAL, and for which the file has no space, would have it grow for ever.
    with new_path(path).open("wb") as trial:
        try:
            os.posix_fallocate(trial.fileno(), 0, 2 * missing * PAGE_SIZE)
        finally:
            new_path(path).unlink()
    for number in range(missing // RESERVED_AT_ONCE + 1):
        row = (-1 - number, PAGE_SIZE * RESERVED_AT_ONCE)
        connection.execute("INSERT INTO keys VALUES (?, zeroblob(?), 0)", row)
    connection.execute("PRAGMA wal_checkpoint")
    connection.execute("DELETE FROM keys WHERE n < 0")


def verify_file(path: Path) -> int:
    """Check everything about a database that nobody writes to, and return its index.

    Raises:
        DatabaseInvalidError, StoreUnavailableError: as ``verify``.
    """
    with _explained(path):
        has_wal = wal_path(path).exists()
    with contextlib.closing(connect(path, "ro" if has_wal else "alone")) as connection:
        return verify(connection, path)


def copy(connection: sqlite3.Connection, path: Path, target: Path) -> int:
    """Copy the open database to ``target``, verified and durable, and return the copy's index.

    ``target`` is replaced in one step, or not at all. Writers of the database don't wait.

    Raises:
        DatabaseInvalidError: the copy did not prove good; ``target`` is as it was.
        StoreUnavailableError: the copy can't be made now; ``target`` is as it was.
    """
    new = new_path(target)
    with _explained(path), contextlib.ExitStack() as failed:
        for leftover in (new, wal_path(new), new.with_name(new.name + "-shm")):
            leftover.unlink(missing_ok=True)
            failed.callback(leftover.unlink, missing_ok=True)
        with contextlib.closing(sqlite3.connect(new, isolation_level=None)) as there:
            # What is copied is held against a checkpoint until the copy is written: syncs of its
            # own would make that long, and it is synced as a whole before it gets its name.
            there.execute("PRAGMA synchronous = off")
            connection.backup(there)
            index = verify(there, new)
        _rename_durably(new, target)
        failed.pop_all()
    return index


def _rename_durably(new: Path, path: Path) -> None:
    """Give a finished file its name, so that a power cut leaves the old one or the new one."""
    sync(new)
    new.rename(path)
    sync(path.parent)


def sync(path: Path) -> None:
    """Make a file, or the names in a folder, durable.

    Raises:
        OSError: it may not be.
    """
    fd = os.open(path, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def explain(
    error: sqlite3.Error | OSError, path: Path
) -> DatabaseInvalidError | StoreUnavailableError:
    """What an error of SQLite or of the system means for the database at ``path``."""
    if isinstance(error, OSError):
        passing = error.errno in PASSING_ERRNOS
    else:
        # Errors of the sqlite3 module itself carry no code.
        code = getattr(error, "sqlite_errorcode", None)
        if code is not None and code & 0xFF == sqlite3.SQLITE_BUSY:
            return StoreBusyError(path)
        passing = code is not None and code & 0xFF in PASSING_ERRORS
        if code is not None and code & 0xFF == sqlite3.SQLITE_CANTOPEN:
            # No space or no descriptor: for the WAL beside a file that can be opened, or for the
            # first file in a folder that takes one.
            if os.path.lexists(path):
                passing = path.is_file() and os.access(path, os.R_OK | os.W_OK)
            else:
                passing = os.access(path.parent, os.W_OK | os.X_OK)
    if passing:
        return StoreUnavailableError(path, f"{error}{_hint(path)}")
    if isinstance(error, FileNotFoundError) and not os.path.lexists(path):
        return StoreNotThereError(path, "there is no such file")
    if os.path.lexists(path) and path.is_file() and not os.access(path, os.R_OK | os.W_OK):
        return NoRightError(path, str(error))
    return DatabaseInvalidError(path, str(error))


def _hint(path: Path) -> str:
    """What SQLite calls an I/O error, too: no space, or no right, for the index of its WAL."""
    with contextlib.suppress(OSError):
        if os.statvfs(path.parent).f_bavail == 0:
            return " (no space is left on its disk)"
    limit, _ = resource.getrlimit(resource.RLIMIT_FSIZE)
    if limit != resource.RLIM_INFINITY:
        return f" (this process may write no file of more than {limit} bytes: see ulimit -f)"
    return ""


@contextlib.contextmanager
def _explained(path: Path) -> Iterator[None]:
    try:
        yield
    except (sqlite3.Error, OSError) as error:
        raise explain(error, path) from error
    except UnicodeDecodeError as error:
        raise DatabaseInvalidError(path, "what should be text in it is not") from error
