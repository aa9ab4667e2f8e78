"""The database: its format, and how it is created, opened, verified and copied.

It is an SQLite database in WAL mode with one row that holds the index. ``application_id`` marks the
file as ours. A digest beside the index reveals a damaged index, which SQLite would not notice: its
pages have no checksums.
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

from fibcore.idempotency_key import DIGEST_SIZE
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
from fibcore.stores.files import (
    backup_copy_path,
    folder_of,
    high_water_mark_path,
    is_there,
    new_path,
    own_files,
    wal_path,
)
from fibcore.stores.keys import KeptKeys

APPLICATION_ID: Final = 0x46494243
"""``FIBC``. See https://sqlite.org/pragma.html#pragma_application_id."""

FORMAT: Final = 1
"""The version of this format, kept as ``user_version``."""

PAGE_SIZE: Final = 512
"""Bytes; the smallest that SQLite supports. A commit changes one row, so it writes one page."""

BUSY_SECONDS: Final = 5.0
"""How long a connection waits for the lock of another."""

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
"""The schema of keys; a database from before there were any gets it when it is opened.

``dropped`` is that of ``keys.KeptKeys``. An earlier version of this program can step such a
database without knowing of keys: it does not update the seal of the row, which reveals it.
"""

KEYS_IN_A_PAGE: Final = 10
"""The least number, if each key has a row of its own."""

RESERVED_AT_ONCE: Final = 100
"""Pages: few enough for a WAL that is regularly moved into the file."""

MADE: Final = struct.Struct(f">{DIGEST_SIZE}sq")
"""A key in ``keys.made``: its digest, and the index of its step."""

# Errors that can go away, unlike a file that a person must examine.
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
RIGHT_ERRNOS: Final = {errno.EACCES, errno.EPERM, errno.EROFS}


def index_digest(index: int) -> bytes:
    """The eight bytes beside ``index`` in the row."""
    return hashlib.blake2b(b"fibcore index %d" % index, digest_size=8).digest()


def seal_of(index: int, what: bytes | int) -> int:
    """The checksum of ``dropped``, or of the keys of a batch, in a row at ``index``."""
    return crc32(b"%d %b" % (index, what if isinstance(what, bytes) else b"%d" % what))


def connect(path: Path, mode: Literal["rw", "ro", "alone"] = "rw") -> sqlite3.Connection:
    """Open the existing database at ``path``, with each statement a transaction of its own.

    It is never created. Threads may share the connection, one at a time. Mode ``ro`` changes
    neither the database nor its WAL. Mode ``alone`` does not even look for a WAL, and leaves
    nothing beside the file: it is for a copy that nobody writes to.

    Raises:
        DatabaseInvalidError, StoreUnavailableError: depending on the condition of the file.
    """
    with explained(path):
        found = path.lstat()
        # What is no file was not made here, so no command may rename or replace it.
        if stat.S_ISLNK(found.st_mode):
            # SQLite would keep the WAL beside the target of the link, and we all other files beside
            # the link, where they protect nothing from users of the target.
            target = os.path.realpath(path)
            raise ForeignDatabaseError(path, f"it is a link to {target}: name that")
        if not stat.S_ISREG(found.st_mode):
            raise ForeignDatabaseError(path, "it is not a file")
        if mode == "rw" and found.st_nlink > 1:
            # Under its other name it has another WAL, lock and high-water mark: two servers would
            # step it. See https://sqlite.org/howtocorrupt.html, 2.5.
            raise LinkedDatabaseError(path, "it has another name (a hard link)")
        how = "mode=ro&immutable=1" if mode == "alone" else f"mode={mode}"
        return sqlite3.connect(
            f"file:{quote(os.fsencode(path))}?{how}",
            uri=True,
            timeout=BUSY_SECONDS,
            isolation_level=None,
            check_same_thread=False,
        )


def create(path: Path, index: int = 0) -> None:
    """Create the database at ``path`` and ``index``, atomically and durably.

    The caller holds the writer's lock, or is alone with ``path`` for another reason.

    Raises:
        DatabaseInvalidError: a file exists at ``path``, or files beside it show that one did: a
            sequence never starts again at 0 because its file was lost.
        StoreUnavailableError: the disk is full or failing.
    """
    reject_remains(path)
    write(path, index)
    with explained(path), contextlib.suppress(PermissionError):
        # The folder may be as new as the file.
        sync(path.parent.parent)


def reject_remains(path: Path) -> None:
    """Raise ``DatabaseMissingError`` if any file shows that there was a database at ``path``."""
    beside = (path, wal_path(path), high_water_mark_path(path), backup_copy_path(path))
    with explained(path):
        remains = tuple(each.name for each in beside if is_there(each))
    if remains:
        raise DatabaseMissingError(path, remains)


def write(path: Path, index: int) -> None:
    """Write a new database at ``index`` to ``path``, atomically and durably.

    The caller holds the writer's lock, and has dealt with the WAL of a database that is replaced:
    SQLite would use it for the new one.

    Raises:
        StoreUnavailableError: the disk is full or failing.
    """
    new = new_path(path)
    with explained(path):
        new.unlink(missing_ok=True)
        connection = sqlite3.connect(new, isolation_level=None)
        with contextlib.closing(connection):
            connection.execute("PRAGMA synchronous = full")
            connection.execute(f"PRAGMA page_size = {PAGE_SIZE}")
            connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
            connection.execute(f"PRAGMA user_version = {FORMAT}")
            connection.execute(SCHEMA)
            add_keys(connection)
            # Earlier keys are unknown here.
            row = (index, index_digest(index), index, seal_of(index, index))
            connection.execute("INSERT INTO sequence VALUES (1, ?, ?, ?, ?)", row)
            connection.execute("PRAGMA journal_mode = wal")
        _rename_durably(new, path)


def verify(connection: sqlite3.Connection, path: Path) -> int:
    """Verify the open database completely and return its index.

    Raises:
        DatabaseInvalidError: it is corrupt, foreign, or of a later format.
        StoreUnavailableError: it can't be read now.
    """
    with explained(path):
        if path.stat().st_size <= 1:
            # SQLite takes it for a new database, and deletes the WAL beside it at the first read,
            # even in mode ro. A file of one byte counts as empty, too (see unixFileSize).
            raise DatabaseInvalidError(path, "it is empty")
        (application,) = connection.execute("PRAGMA application_id").fetchone()
        if application != APPLICATION_ID:
            raise ForeignDatabaseError(path, "another program made it")
        (version,) = connection.execute("PRAGMA user_version").fetchone()
        if version > FORMAT:
            raise ForeignDatabaseError(
                path, f"its format is {version}, and this program knows {FORMAT} alone"
            )
        if version < FORMAT:
            raise DatabaseInvalidError(path, "it was not written completely: it names no format")
        (finding,) = connection.execute("PRAGMA integrity_check(1)").fetchone()
        if finding != "ok":
            raise DatabaseInvalidError(path, f"it is corrupt ({' '.join(finding.split())})")
        return read_index(connection, path)


def read_index(connection: sqlite3.Connection, path: Path) -> int:
    """Return the index in the open database, if it matches its digest.

    Raises:
        DatabaseInvalidError: the row is missing or damaged.
        StoreUnavailableError: it can't be read now.
    """
    with explained(path):
        rows = connection.execute("SELECT n, digest FROM sequence").fetchall()
    if len(rows) != 1:
        raise DatabaseInvalidError(path, f"it holds {len(rows)} rows instead of one")
    ((index, digest),) = rows
    if not isinstance(index, int) or digest != index_digest(index):
        raise DatabaseInvalidError(path, "its index does not match the digest beside it")
    return index


def add_keys(connection: sqlite3.Connection) -> None:
    """Add the schema of keys to the open database."""
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
        # A version without keys has stepped or set it.
        connection.execute("DELETE FROM keys")
        dropped = index
    connection.execute("COMMIT")
    return int(dropped)


def read_keys(connection: sqlite3.Connection, path: Path, dropped: int, keep: int) -> KeptKeys:
    """Return the keys in the open database, after allocating the space for all that it may hold.

    If some are damaged, all before them count as dropped, too.

    Args:
        connection: to the database.
        path: its path.
        dropped: as ``prepare_keys`` has returned it, or higher.
        keep: the largest number of keys.

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
    """Allocate all pages that keys will need, so that steps go on when the disk is full.

    The pages are written, moved from the WAL into the file, and freed there.
    """
    connection.execute("DELETE FROM keys WHERE n < 0")  # Left by an interrupted call.
    (pages,) = connection.execute("PRAGMA page_count").fetchone()
    missing = keep * 5 // 4 // KEYS_IN_A_PAGE + RESERVED_AT_ONCE - pages
    if missing <= 0:
        return
    # Pages in the WAL for which the file has no space would make the WAL grow for ever.
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
    """Verify a database that nobody writes to, and return its index.

    Raises:
        DatabaseInvalidError, StoreUnavailableError: as ``verify``.
    """
    with explained(path):
        has_wal = is_there(wal_path(path))
    with contextlib.closing(connect(path, "ro" if has_wal else "alone")) as connection:
        return verify(connection, path)


def copy(connection: sqlite3.Connection, path: Path, target: Path) -> int:
    """Copy the open database to ``target``, verified and durable, and return the copy's index.

    The copy has all keys that are kept, and no space for more: a store that opens it reserves that
    again. ``target`` is replaced atomically. Writers of the database don't wait.

    Raises:
        DatabaseInvalidError: the copy was not good; ``target`` is as it was.
        StoreUnavailableError: the copy can't be made now; ``target`` is as it was.
    """
    new = new_path(target)
    with explained(path), contextlib.ExitStack() as failed:
        for leftover in (new, wal_path(new), new.with_name(new.name + "-shm")):
            leftover.unlink(missing_ok=True)
            failed.callback(leftover.unlink, missing_ok=True)
        with contextlib.closing(sqlite3.connect(new, isolation_level=None)) as there:
            made = new.stat()
            # A checkpoint waits until the copy is written. Syncs in between would make that long;
            # the file is synced as a whole before it gets its name.
            there.execute("PRAGMA synchronous = off")
            connection.backup(there)
            # Leaves out the space that is reserved for keys. Not through a WAL: if that can't be
            # moved into the file when it is closed, nobody learns of it.
            there.execute("PRAGMA journal_mode = off")
            there.execute("VACUUM")
            there.execute("PRAGMA journal_mode = wal")
            index = verify(there, new)
        if not os.path.samestat(made, new.stat()):
            # What gets the name is what was verified.
            failed.pop_all()
            raise StoreUnavailableError(target, "another process writes a copy there, too")
        _rename_durably(new, target)
        failed.pop_all()
    return index


def _rename_durably(new: Path, path: Path) -> None:
    """Rename a finished file so that a power cut leaves either the old file or the new one."""
    sync(new)
    new.rename(path)
    sync(path.parent)


def sync(path: Path) -> None:
    """Sync a file, or the names in a folder.

    Raises:
        OSError: they may not be durable.
    """
    fd = os.open(path, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def explain(
    error: sqlite3.Error | OSError, path: Path
) -> DatabaseInvalidError | StoreUnavailableError:
    """The problem that an error of SQLite or of the system means for the file ``path``.

    **A missing right is never taken for invalid content**: whoever took it may give it back.
    """
    try:
        return _cause(error, path)
    except OSError as later:
        # A right to the folder is missing since the error, or again.
        return unavailable(later, path)


def _cause(
    error: sqlite3.Error | OSError, path: Path
) -> DatabaseInvalidError | StoreUnavailableError:
    if isinstance(error, OSError):
        passing = error.errno in PASSING_ERRNOS | RIGHT_ERRNOS
    else:
        # Errors of the sqlite3 module itself have no code.
        code = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR) & 0xFF
        if code == sqlite3.SQLITE_BUSY:
            return StoreBusyError(path)
        right = next(without_right(path), None)
        if right is not None and code not in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB):
            return NoRightError(right, str(error))
        passing = code in PASSING_ERRORS
        if code == sqlite3.SQLITE_CANTOPEN:
            # No space or no descriptor: for the WAL beside a file that can be opened, or for the
            # first file in a folder that takes one.
            passing = path.is_file() or (
                not is_there(path) and os.access(path.parent, os.W_OK | os.X_OK)
            )
    if passing:
        return unavailable(error, path)
    if isinstance(error, FileNotFoundError) and not is_there(path):
        return StoreNotThereError(path, "there is no such file")
    return DatabaseInvalidError(path, str(error))


def unavailable(error: sqlite3.Error | OSError, path: Path) -> StoreUnavailableError:
    """The problem with the file ``path`` if it may go away."""
    if isinstance(error, OSError) and error.errno in RIGHT_ERRNOS:
        right = next(without_right(path), error.filename or path)
        return NoRightError(right, os.strerror(error.errno))
    return StoreUnavailableError(path, f"{error}{_hint(path)}")


def without_right(database: Path) -> Iterator[Path]:
    """What this user may not read and write: the folder of ``database``, or files of it."""
    folder = folder_of(database)
    if not (folder.is_file() or os.access(folder, os.R_OK | os.W_OK | os.X_OK)):
        yield folder
        return
    try:
        for each in own_files(database):
            if each.is_file() and not os.access(each, os.R_OK | os.W_OK):
                yield each
    except PermissionError:
        yield folder


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
def explained(path: Path) -> Iterator[None]:
    """Raise what ``explain`` makes of errors inside."""
    try:
        yield
    except (sqlite3.Error, OSError) as error:
        raise explain(error, path) from error
    except UnicodeDecodeError as error:
        raise DatabaseInvalidError(path, "its text is not valid UTF-8") from error
