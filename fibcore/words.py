"""What a condition means and the way out of it, in words: for the log, ``/health`` and the command.

Each says what happened, what it means for the database, and what to do; the way out that loses
nothing is named first.
"""

import errno
import shlex
import shutil
import sys
from pathlib import Path

from fibcore import maintenance, stores, upkeep
from fibcore.settings import Settings
from fibcore.stores.opening import DriverMissingError, UrlInvalidError

__all__ = ["any_host", "cannot_listen", "explain", "explain_weakness", "typed", "way_out"]

UNTOUCHED = "It has not been changed and nothing is served from it."
MEANWHILE = "Nothing that was answered is lost, and nothing steps meanwhile."
RETRIED = "The server tries it again by itself."


def typed(command: str) -> str:
    """A command line of ours as it is typed where this process runs: whole, if not on the path."""
    name, space, arguments = command.partition(" ")
    path = Path(sys.prefix, "bin", name)
    if shutil.which(name) is not None:
        return command
    if path.is_relative_to(Path.cwd()):
        path = path.relative_to(Path.cwd())
    return f"{path}{space}{arguments}"


def explain(error: BaseException, option: str = "") -> str:
    """The sentences for a condition of ``fibcore``; any other error as it says itself.

    Args:
        error: the condition.
        option: what the ``fibcore`` command must be given to look after the same database.
    """
    match error:
        case stores.DatabaseInvalidError():
            return _invalid(error, option)
        case stores.StoreBusyError():
            return (
                f"The database {error.where} is in use by another program that does not let go of "
                f"it. {MEANWHILE} End that program. {RETRIED}"
            )
        case stores.BatchInDoubtError():
            way = "Check the engine and the network to it."
            if isinstance(error.error, stores.DatabaseInvalidError):
                way = way_out(error.error, option)
            return (
                f"{error.where} has not said yet whether the last {error.steps} steps were made: "
                f"{error.cause}. Their requests are answered once that is known; all others are "
                f"answered 503 until then. {way} {RETRIED}"
            )
        case stores.BatchUnknowableError():
            return (
                f"{error.where} does not hold this process's record any more, so nobody can know "
                f"whether the last {error.steps} steps were made. They are not answered, and no "
                f"answered step is lost. The process ends; the next one resumes from the index "
                f"that is committed."
            )
        case stores.IndexPastLimitError():
            return (
                f"{error.where} is at index {error.index}, past FIB_MAX_INDEX={error.largest} of "
                f"this server, which serves nothing from it meanwhile. Nothing is lost. Raise "
                f"FIB_MAX_INDEX, or set the index right: {typed('fibcore set-index --lower N')}."
            )
        case stores.CatchingUpError():
            return (
                f"The sequence in {error.where} has been moved to index {error.index}, and this "
                f"server is computing its number. Nothing is lost, and it serves when that is done."
            )
        case stores.EngineUnavailableError():
            return (
                f"{error.where} can't be used now: {error.cause}. Nothing that was answered is "
                f"lost, and nothing is answered from here meanwhile. Look after it, and the way "
                f"there. {RETRIED}"
            )
        case stores.StoreUnavailableError():
            return (
                f"{error.where} can't be used now: {error.cause}. {MEANWHILE} Free disk space, "
                f"mend the device, or give this user the right to read and write it. {RETRIED}"
            )
        case stores.AnotherWriterError():
            return (
                f"The database {error.where} no longer stands at index {error.stood}: another "
                f"process has written to it. Nothing was committed. The process ends, so that the "
                f"database is read anew; end the other program."
            )
        case stores.CommitFailedError():
            return (
                f"The commit of index {error.index} to {error.where} failed: {error.cause}. Its "
                f"steps are not answered, and whether they are on disk is known only when the "
                f"database is read anew. The process ends, so that the next one does that."
            )
        case DriverMissingError():
            return (
                f"FIB_STORE names a store of {error.scheme}, whose driver is not installed. "
                f"Nothing has been changed. Install it: pip install 'fibcore[{error.scheme}]'."
            )
        case upkeep.SteppedMeanwhileError():
            return (
                f"{error.where} has moved on since {error.target} was set to where it stood: nodes "
                f"step it. Nothing is lost yet. Stop them, and do this again before any node "
                f"serves from {error.target}."
            )
        case UrlInvalidError():
            return (
                f"FIB_STORE is no URL of a store of {error.scheme}: {error.finding}. Nothing has "
                f"been changed. Write it as docs/scale.md does."
            )
        case _:
            return _not_done(error)


def explain_weakness(where: str, weakness: stores.Weakness) -> str:
    """What a setting of a shared store may cost."""
    return (
        f"{where} keeps less than this server promises: with {weakness.setting}, "
        f"{weakness.risk.value}."
    )


def cannot_listen(settings: Settings, error: OSError) -> str:
    """Why ``FIB_HOST`` and ``FIB_PORT`` can't be listened on."""
    host, port = f"FIB_HOST={settings.host}", f"FIB_PORT={settings.port}"
    if (error.errno or 0) < 0:
        # Of the look-up of names; see getaddrinfo(3).
        why = f"{host} is not known: {(error.strerror or '').partition(' (')[0]}"
        way = "Set FIB_HOST to an address of this machine, such as 127.0.0.1"
    elif error.errno == errno.EADDRNOTAVAIL:
        why = f"{host} is no address of this machine"
        way = "Set FIB_HOST to one, such as 127.0.0.1"
    elif error.errno == errno.EADDRINUSE:
        why = f"{port} at {settings.host} is in use by another program"
        way = "End that program, or set FIB_PORT to another port"
    elif error.errno in (errno.EACCES, errno.EPERM):
        why = f"{port} is not for this user to listen on: so low a port needs a right of its own"
        way = "Set FIB_PORT to one from 1024 on"
    else:
        why = f"{host} {port} can't be listened on: {error}"
        way = "Set them to what can be"
    return f"{why}. The database is untouched. {way}."


def any_host(settings: Settings) -> str:
    """Why ``FIB_ALLOWED_HOSTS`` should be set where others than this machine can connect."""
    return (
        f"FIB_HOST={settings.host} lets other machines connect, and FIB_ALLOWED_HOSTS is empty: "
        f"requests for any host name are answered, so that a web page can step the sequence by "
        f"DNS rebinding. Set FIB_ALLOWED_HOSTS to the names that clients use; addresses and "
        f"localhost are always answered."
    )


def way_out(error: stores.DatabaseInvalidError, option: str = "") -> str:
    """What to do about a database that is not served from; ``option`` as for ``explain``."""

    def fibcore(arguments: str) -> str:
        return typed(f"fibcore {arguments}{option}")

    match error:
        case stores.SequenceMissingError():
            return (
                f"If there was one, this is not the store that it was in, or that has lost it: set "
                f"FIB_STORE and FIB_SEQUENCE right, or {fibcore('restore FILE')}. To begin at 0: "
                f"{fibcore('init')}."
            )
        case stores.FellBackError():
            return (
                f"Stop all servers of it. To go on with no step lost: "
                f"{fibcore(f'set-index {error.known}')}, or a higher one that another of them has "
                f"logged. To go on from {error.index}, start them again."
            )
        case stores.StoreNotThereError():
            return (
                "Run this where the server was started, or name the database with --database or "
                "FIB_STORE."
            )
        case stores.IndexTooLargeError():
            return "Set FIB_INTEGERS=uint64, with which it came there, or FIB_STORE to another one."
        case stores.ForeignDatabaseError():
            return "Move it away if it should not be there, or set FIB_STORE to another file."
        case stores.EngineTooOldError():
            return f"Use {error.oldest} or a later version of it."
        case stores.LinkedDatabaseError():
            return (
                f"List its names with find / -xdev -samefile {shlex.quote(error.where)}, keep the "
                f"one whose folder has the WAL (-wal), and remove the others."
            )
        case stores.NoRightError():
            return "Give this user the right to read and write it."
        case stores.FolderUnusableError():
            return "Give this user the right to write there, or set FIB_STORE to a file elsewhere."
    if not error.known:
        out = (
            f"Restore it from a backup: {fibcore('restore FILE')}. If it is none of ours, set "
            f"FIB_STORE to another file."
        )
    elif error.known_is_last:
        out = f"To go on where it stood, with no step lost: {fibcore(f'set-index {error.known}')}."
    else:
        out = (
            f"To go on from the last index that is known to have been committed, {error.known}: "
            f"{fibcore(f'set-index {error.known}')}. A backup that stands higher is better still: "
            f"{fibcore('restore FILE')}."
        )
    match error:
        case stores.DatabaseMissingError():
            begin = f"To begin at 0 on purpose: {fibcore('set-index --lower 0')}."
            return f"If it was moved, put it back. {out} {begin}"
        case stores.StepsLostError():
            return (
                f"{out} To go back, and answer the steps between again: "
                f"{fibcore(f'set-index --lower {error.index}')}."
            )
    return out


def _invalid(error: stores.DatabaseInvalidError, option: str) -> str:
    out = way_out(error, option)
    match error:
        case stores.SequenceMissingError():
            return (
                f"There is no sequence {error.sequence} in {error.where}. Nothing has been made. "
                f"{out}"
            )
        case stores.FellBackError():
            return (
                f"{error.where} stands at index {error.index}, and this process knows that index "
                f"{error.known} was committed there. It has lost steps in a crash or a failover, "
                f"an older copy was put in its place, or somebody has set it back. Nobody is told "
                f"what it says now, and nothing is served from it here any more. {out}"
            )
        case stores.StoreNotThereError():
            return f"There is no database {error.where}. Nothing has been made. {out}"
        case stores.DatabaseMissingError():
            return (
                f"The database {error.where} is missing, but {' and '.join(error.remains)} beside "
                f"it shows that there was one. Nothing has been changed. {out}"
            )
        case stores.StepsLostError():
            return (
                f"The database {error.where} is invalid: it stands at index {error.index}, and "
                f"{error.evidence} beside it shows that index {error.known} was committed. Its WAL "
                f"was lost or damaged, or an older copy was put in its place. {UNTOUCHED} {out}"
            )
        case stores.IndexTooLargeError():
            return (
                f"The database {error.where} stands at index {error.index}, past {error.largest}, "
                f"the largest in exact arithmetic. {UNTOUCHED} {out}"
            )
        case stores.FolderUnusableError():
            return (
                f"The folder of the database {error.where} can't be used: {error.finding}. Nothing "
                f"has been changed. {out}"
            )
    return f"The database {error.where} is invalid: {error.finding}. {UNTOUCHED} {out}"


def _not_done(error: BaseException) -> str:
    """Why something that a person asked for is not done."""
    match error:
        case MemoryError():
            return (
                "There is not enough memory for this: more than the machine has, or than "
                "ulimit -v allows. The database is as it was. Free some, or raise the limit."
            )
        case maintenance.InUseError():
            return (
                f"The database {error.where} is in use by process {error.pid}. Nothing has been "
                f"changed. Stop the server and its standby first: with "
                f"{typed('supervisorctl')} stop 'web:*', or with Ctrl-C where fibcore serve runs."
            )
        case maintenance.LowerError():
            return (
                f"The database {error.where} stood at index {error.known}: going back to "
                f"{error.index} answers the indexes between again. Nothing has been changed. If "
                f"that is meant, add --lower."
            )
        case maintenance.OwnFileError():
            return f"{error.target} is one of the database's own files. Name another one."
        case maintenance.InTheWayError():
            return (
                f"{error.target} is no copy of a database, so it is not replaced: {error.finding}. "
                f"Nothing has been changed. Move it away, or name another file."
            )
        case maintenance.BackupCopyDamagedError():
            return (
                f"The backup copy {error.where} is damaged: {error.finding}. The database is "
                f"good. Look after the disk; a server that runs puts another copy in its place."
            )
        case maintenance.CopyInvalidError():
            return (
                f"{error.target} can't be restored: {error.finding}. The database is as it was. "
                f"Name another copy."
            )
        case maintenance.NoFolderError():
            return (
                f"{error.target} is not written: {error.cause}. The database is as it was. Name a "
                f"file in a folder that this user may write to."
            )
        case maintenance.CopyFailedError():
            return (
                f"{error.target} is not written: {error.cause}. The database is as it was, and so "
                f"is an older copy. Free disk space there, or name another file."
            )
        case _:
            return str(error)
