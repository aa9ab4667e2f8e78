"""The problems that a user can meet: each has its fields, its words, and an exit status.

The words are in three parts: what happened, what it means for the state, and what to do, the way
that loses nothing first. They are templates (``str.format``) with a problem's fields, and commands
as they are typed where this process runs: ``{fibcore:restore FILE}``.
"""

import errno
import os
import re
import shlex
import shutil
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

UNTOUCHED: Final = "It has not been changed and nothing is served from it."
OF_A_SERVER: Final = {
    "meanwhile": "Nothing that was answered is lost, and nothing steps meanwhile.",
    "unanswered": "Nothing that was answered is lost, and nothing is answered from here meanwhile.",
    "retried": "The server retries automatically.",
}
"""What a server adds to a problem, by the field of a template."""


def typed(command: str) -> str:
    """A command line of ours as it is typed where this process runs: whole, if not on the path."""
    name, space, arguments = command.partition(" ")
    path = Path(sys.prefix, "bin", name)
    if shutil.which(name) is not None:
        return command
    if path.is_relative_to(Path.cwd()):
        path = path.relative_to(Path.cwd())
    return f"{path}{space}{arguments}"


def explain(error: BaseException, option: str | None = None) -> str:
    """The words for ``error``: a problem's own, or those that it comes with.

    Args:
        error: whatever was raised.
        option: what the ``fibcore`` command must be given to look after the same database; None in
            a server, which alone says what becomes of its requests, and that it tries again.
    """
    if isinstance(error, Problem):
        return error.explain(option)
    if isinstance(error, MemoryError):
        return (
            "There is not enough memory for this: more than the machine has, or than ulimit -v "
            "allows. The database is as it was. Free some, or raise the limit."
        )
    return str(error)


def status_of(error: BaseException) -> int:
    """The status with which a command exits that ``error`` has ended."""
    if isinstance(error, Problem):
        return error.status
    return os.EX_OSERR if isinstance(error, MemoryError) else os.EX_IOERR


class _Command:
    """A command in a template; behind the colon are its arguments."""

    def __init__(self, name: str, option: str) -> None:
        self._name = name
        self._option = option

    def __format__(self, arguments: str) -> str:
        return typed(f"{self._name} {arguments}".strip() + self._option)


class Problem(Exception):  # noqa: N818 - the word for it
    """What a user can meet."""

    status = 1
    """With which a command exits."""

    def __str__(self) -> str:
        return self._filled(self.brief, None)

    def explain(self, option: str | None = None) -> str:
        """The whole of it, in one line; ``option`` as for the function of that name."""
        return self._filled(f"{self.sentence} {self.way_out}", option)

    @property
    def public(self) -> str:
        """What happened, for a client, who may be anybody: no path, host or user."""
        text = self._filled(
            self.sentence, None, where="the store", reason="the server's log has the reason"
        )
        text = text.replace("database the store", "database")
        return text[0].upper() + text[1:]

    def _filled(self, template: str, option: str | None, **instead: object) -> str:
        names = (*self.__dataclass_fields__, *vars(self))  # type: ignore[attr-defined]
        text = template.format(
            **{name: getattr(self, name) for name in names} | instead,
            fibcore=_Command("fibcore", option or ""),
            supervisorctl=_Command("supervisorctl", ""),
            **{name: "" if option is not None else words for name, words in OF_A_SERVER.items()},
        )
        return re.sub(r"  +", " ", text).strip()

    @property
    def brief(self) -> str:
        """The template of its short form, for a line that has its own frame."""
        return self.sentence

    @property
    def sentence(self) -> str:
        """The template of what happened, and what it means for the state."""
        raise NotImplementedError

    @property
    def way_out(self) -> str:
        """The template of what to do; empty where ``sentence`` has it."""
        return ""


@dataclass(eq=False)
class _Told(Problem):
    """A problem whose words are those that it is raised with."""

    text: str

    sentence = "{text}"


# Settings, and the command line.


@dataclass(eq=False)
class SettingsError(_Told):
    """A setting is not what it may be; the text names the variable and what it takes."""

    others: tuple["SettingsError", ...] = ()
    """Of the same settings."""

    status = os.EX_CONFIG


class StoreSettingError(Problem):
    """The store that is set can't be used as it is set. Nothing has been tried."""

    status = os.EX_CONFIG


@dataclass(eq=False)
class UrlInvalidError(StoreSettingError):
    """The URL of a store can't be understood."""

    scheme: str
    reason: str
    """A clause, without any part of a password."""

    brief = "{scheme}: {reason}"
    sentence = "FIB_STORE is no URL of a store of {scheme}: {reason}. Nothing has been changed."
    way_out = "Write it as docs/scale.md does."


@dataclass(eq=False)
class DriverMissingError(StoreSettingError):
    """What a store is reached with is not installed."""

    scheme: str
    """Also the name of the extra that brings the driver."""

    brief = "the driver of {scheme} is not installed"
    sentence = (
        "FIB_STORE names a store of {scheme}, whose driver is not installed. Nothing has been "
        "changed."
    )
    way_out = "Install it: pip install 'fibcore[{scheme}]'."


@dataclass(eq=False)
class CantListenError(Problem):
    """``FIB_HOST`` and ``FIB_PORT`` can't be listened on."""

    host: str
    port: int
    error: OSError

    status = os.EX_CONFIG

    @property
    def sentence(self) -> str:
        return f"{self._words()[0]}. The database is untouched."

    @property
    def way_out(self) -> str:
        return f"{self._words()[1]}."

    def _words(self) -> tuple[str, str]:
        number = self.error.errno or 0
        if number < 0:
            # Of the look-up of names; see getaddrinfo(3).
            unknown = (self.error.strerror or "").partition(" (")[0]
            return (
                f"FIB_HOST={{host}} is not known: {unknown}",
                "Set FIB_HOST to an address of this machine, such as 127.0.0.1",
            )
        if number == errno.EADDRNOTAVAIL:
            return (
                "FIB_HOST={host} is no address of this machine",
                "Set FIB_HOST to one, such as 127.0.0.1",
            )
        if number == errno.EADDRINUSE:
            return (
                "FIB_PORT={port} at {host} is in use by another program",
                "End that program, or set FIB_PORT to another port",
            )
        if number in (errno.EACCES, errno.EPERM):
            return (
                "This user may not listen on FIB_PORT={port}: ports below 1024 need a privilege",
                "Set FIB_PORT to one from 1024 on",
            )
        return (
            "FIB_HOST={host} FIB_PORT={port} can't be listened on: {error}",
            "Set them to what can be",
        )


@dataclass(eq=False)
class OtherStoreError(Problem):
    """A server of the folder has another store than the command is set to."""

    where: str
    source: str
    """Of the setting."""
    pid: int
    served: str
    """By the process ``pid``."""

    status = os.EX_CONFIG
    sentence = (
        "Process {pid}, a server of this folder, has the store {served}, and this command would "
        "use {where} (FIB_STORE: {source}). Nothing has been changed."
    )
    way_out = (
        "Set FIB_STORE as that server has it; or stop the server; or name a file with --database."
    )


class TooLargeError(_Told):
    """The index is past the largest for the kind of integer. Nothing has been changed."""


class NotAnsweringError(_Told):
    """There is no status to be had: no server answers, or something else does."""

    status = os.EX_UNAVAILABLE


class NotHealthyError(_Told):
    """The server answers that it can't step now; the text is its reason."""

    status = os.EX_UNAVAILABLE


# What the store holds can't be trusted.


@dataclass(eq=False)
class DatabaseInvalidError(Problem):
    """What the store holds can't be trusted, so it is not served. It has not been changed.

    Trying again doesn't help: a person must look.
    """

    where: Path | str
    """The database's path, or the store's URL without a password."""
    reason: str
    """What is wrong with it, as half a sentence: "it is empty"."""
    known: int = field(default=0, kw_only=True)
    """The largest index that is known to have been committed there; 0 if none is."""
    known_is_last: bool = field(default=False, kw_only=True)
    """Whether it is also known that nothing was acknowledged after ``known``."""

    status = os.EX_DATAERR
    brief = "{where}: {reason}"
    sentence = f"The database {{where}} is invalid: {{reason}}. {UNTOUCHED}"

    @property
    def way_out(self) -> str:
        if not self.known:
            return (
                "Restore it from a backup: {fibcore:restore FILE}. If it is none of ours, set "
                "FIB_STORE to another file."
            )
        if self.known_is_last:
            return "To go on where it stood, with no step lost: {fibcore:set-index {known}}."
        return (
            "To go on from the last index that is known to have been committed, {known}: "
            "{fibcore:set-index {known}}. A backup that stands higher is better still: "
            "{fibcore:restore FILE}."
        )


class ForeignDatabaseError(DatabaseInvalidError):
    """It is whole, and another program's or a later version's: it is never replaced."""

    way_out = "Move it away if it should not be there, or set FIB_STORE to another file."


class LinkedDatabaseError(DatabaseInvalidError):
    """The file has more than one name, so that the files beside it guard it against nobody."""

    @property
    def way_out(self) -> str:
        name = shlex.quote(str(self.where)).replace("{", "{{").replace("}", "}}")
        return (
            f"List its names with find / -xdev -samefile {name}, keep the one whose folder has the "
            f"WAL (-wal), and remove the others."
        )


class FolderUnusableError(DatabaseInvalidError):
    """The folder of the database can't be used, so that there is no knowing what it holds."""

    status = os.EX_CANTCREAT
    sentence = (
        "The folder of the database {where} can't be used: {reason}. Nothing has been changed."
    )
    way_out = "Give this user the right to write there, or set FIB_STORE to a file elsewhere."


class StoreNotThereError(DatabaseInvalidError):
    """There is nothing at that name, and nothing beside it that says that there was.

    A server makes a database that has never been there; whoever only looks makes nothing.
    """

    status = os.EX_NOINPUT
    sentence = "There is no database {where}. Nothing has been made."
    way_out = (
        "Run this where the server was started, or name the database with --database or FIB_STORE."
    )


@dataclass(eq=False)
class SequenceMissingError(StoreNotThereError):
    """A store that is shared holds no such sequence: it is made on purpose, and by nothing else."""

    reason: str = field(init=False)
    sequence: str

    sentence = "There is no sequence {sequence} in {where}. Nothing has been made."
    way_out = (
        "If there was one, this is not the store that it was in, or that has lost it: set "
        "FIB_STORE and FIB_SEQUENCE right, or {fibcore:restore FILE}. To begin at 0: "
        "{fibcore:init}."
    )

    def __post_init__(self) -> None:
        self.reason = f"there is no sequence {self.sequence}"


@dataclass(eq=False)
class IndexTooLargeError(DatabaseInvalidError):
    """It stands past the largest index that can be counted on from."""

    reason: str = field(init=False)
    index: int
    """Where it stands."""
    largest: int
    """How far the configured kind of integer goes."""

    sentence = (
        f"The database {{where}} stands at index {{index}}, past {{largest}}, the largest in exact "
        f"arithmetic. {UNTOUCHED}"
    )
    way_out = "Set FIB_INTEGERS=uint64, with which it came there, or FIB_STORE to another one."

    def __post_init__(self) -> None:
        self.reason = f"it stands at index {self.index}, past {self.largest}"


@dataclass(eq=False)
class EngineTooOldError(DatabaseInvalidError):
    """The engine of a shared store is of an earlier version than this program can work with."""

    reason: str = field(init=False)
    version: str
    """With the engine's name: "Redis 5.0"."""
    oldest: str
    """The earliest version that will do: "6.2"."""

    way_out = "Use {oldest} or a later version of it."

    def __post_init__(self) -> None:
        self.reason = f"it is {self.version}, and must be {self.oldest} or later"


@dataclass(eq=False)
class DatabaseMissingError(DatabaseInvalidError):
    """The database is gone, and what is left beside it shows that there was one."""

    reason: str = field(init=False)
    remains: tuple[str, ...]
    """The names of what is left."""

    sentence = (
        "The database {where} is missing, but {remains_named} beside it shows that there was one. "
        "Nothing has been changed."
    )

    def __post_init__(self) -> None:
        self.remains_named = " and ".join(self.remains)
        self.reason = f"it is missing, but {self.remains_named} beside it is there"

    @property
    def way_out(self) -> str:
        return (
            f"If it was moved, put it back. {super().way_out} To begin at 0 on purpose: "
            f"{{fibcore:set-index --lower 0}}."
        )


@dataclass(eq=False)
class StepsLostError(DatabaseInvalidError):
    """It is whole, and stands lower than an index that was committed, ``known``."""

    reason: str = field(init=False)
    index: int
    """Where it stands."""
    evidence: str
    """The name of the file that shows it."""

    sentence = (
        f"The database {{where}} is invalid: it stands at index {{index}}, and {{evidence}} beside "
        f"it shows that index {{known}} was committed. Its WAL was lost or damaged, or an older "
        f"copy was put in its place. {UNTOUCHED}"
    )

    def __post_init__(self) -> None:
        self.reason = (
            f"it stands at index {self.index}, and {self.evidence} shows that index {self.known} "
            f"was committed"
        )

    @property
    def way_out(self) -> str:
        return (
            f"{super().way_out} To go back, and answer the steps between again: "
            f"{{fibcore:set-index --lower {{index}}}}."
        )


@dataclass(eq=False)
class IndexRegressedError(StepsLostError):
    """A store that is shared stands lower than it did when this process last asked."""

    evidence: str = field(default="this process", init=False)

    sentence = (
        "{where} stands at index {index}, and this process knows that index {known} was committed "
        "there. It has lost steps in a crash or a failover, an older copy was put in its place, or "
        "somebody has set it back. Nobody is told what it says now, and nothing is served from it "
        "here any more."
    )
    way_out = (
        "Stop all servers of it. To go on with no step lost: {fibcore:set-index {known}}, or a "
        "higher one that another of them has logged. To go on from {index}, start them again."
    )


# The store can't be used now.


@dataclass(eq=False)
class StoreUnavailableError(Problem):
    """The store can't be used now (a full disk, a failing device, no connection).

    Nothing has been lost; what was asked for has not been done, and nothing of it will be. Trying
    again later may help.
    """

    where: Path | str
    """The file, or the store's URL without a password."""
    reason: str
    """What the system, the library or the engine said."""

    status = os.EX_TEMPFAIL
    brief = "{where}: {reason}"
    sentence = "{where} can't be used now: {reason}. {meanwhile}"
    way_out = (
        "Free disk space, mend the device, or give this user the right to read and write it. "
        "{retried}"
    )


class NoRightError(StoreUnavailableError):
    """This user may not read it, or not write it, until somebody gives it the right."""

    sentence = "This user may not use {where}: {reason}. {meanwhile}"
    way_out = "Give this user the right to read and write it. {retried}"


@dataclass(eq=False)
class StoreBusyError(StoreUnavailableError):
    """Another program has it open, and does not let go of it."""

    reason: str = field(default="it is in use by another program", init=False)

    sentence = (
        "The database {where} is in use by another program that does not let go of it. {meanwhile}"
    )
    way_out = "End that program. {retried}"


class KeysUnavailableError(StoreUnavailableError):
    """The store can't keep idempotency keys. Steps without one are made as ever."""

    sentence = (
        "{where} can't keep idempotency keys now: {reason}. Nothing was stepped for this key; "
        "requests without one are answered as ever."
    )
    way_out = "Free disk space, or run {fibcore:create} as the owner of the tables."


@dataclass(eq=False)
class IndexPastLimitError(StoreUnavailableError):
    """The index is past the largest that this process may serve, so its number is not computed."""

    reason: str = field(init=False)
    index: int
    largest: int
    """``FIB_MAX_INDEX``."""

    sentence = (
        "{where} is at index {index}, past FIB_MAX_INDEX={largest} of this server, which serves "
        "nothing from it meanwhile. Nothing is lost."
    )
    way_out = "Raise FIB_MAX_INDEX, or set the index right: {fibcore:set-index --lower N}."

    def __post_init__(self) -> None:
        self.reason = f"it is at index {self.index}, past {self.largest}"


@dataclass(eq=False)
class CatchingUpError(StoreUnavailableError):
    """The number at an index that others have moved the sequence to is being computed."""

    reason: str = field(init=False)
    index: int
    """To which it has been moved."""

    sentence = (
        "The sequence in {where} has been moved to index {index}, and this server is computing its "
        "number. Nothing is lost, and it serves when that is done."
    )
    way_out = ""

    def __post_init__(self) -> None:
        self.reason = f"the number at index {self.index} is being computed"


class EngineUnavailableError(StoreUnavailableError):
    """The engine of a store that is shared can't be reached, or can't do it now."""

    sentence = "{where} can't be used now: {reason}. {unanswered}"
    way_out = "Check the engine and the network to it. {retried}"


def _last(steps: int) -> str:
    return "the last step was" if steps == 1 else f"the last {steps} steps were"


@dataclass(eq=False)
class BatchInDoubtError(EngineUnavailableError):
    """It is not known yet what has become of the steps that were sent last, and so it is asked."""

    reason: str = field(init=False)
    steps: int
    """How many they are."""
    error: Exception
    """Why it is not known."""

    sentence = (
        "{where} has not said yet whether {last_steps} made: {reason}. Their "
        "requests are answered once that is known; all others are answered 503 until then."
    )

    def __post_init__(self) -> None:
        self.reason = str(self.error)
        self.last_steps = _last(self.steps)

    def explain(self, option: str | None = None) -> str:
        """What the error says to do, if it is one of those that pass only if a person does it."""
        if not isinstance(self.error, (DatabaseInvalidError, NoRightError)):
            return super().explain(option)
        way_out = self.error._filled(self.error.way_out, option or "")
        return f"{self._filled(self.sentence, option)} {way_out} {OF_A_SERVER['retried']}"


# The process ends, unanswered (fail-stop).


@dataclass(eq=False)
class BatchUnknowableError(Problem):
    """Nobody can know what has become of the steps that were sent last: their record is gone.

    The process that got this must end without answering (fail-stop).
    """

    where: str
    """The store's URL without a password."""
    steps: int
    """How many they are."""

    brief = "{where}: the record of its last batch is gone"
    sentence = (
        "{where} does not hold this process's record any more, so nobody can know whether "
        "{last_steps} made. They are not answered, and no answered step is lost. The process "
        "ends; the next one resumes from the index that is committed."
    )

    def __post_init__(self) -> None:
        self.last_steps = _last(self.steps)


@dataclass(eq=False)
class CommitFailedError(Problem):
    """A commit of an exclusive store failed: what the disk holds is unknown until it is read anew.

    The process that got this must end without answering (fail-stop): after a failed sync a
    second one that succeeds proves nothing. See A. Rebello et al., Can Applications Recover
    from fsync Failures?, USENIX ATC 2020.
    """

    where: Path | str
    """The database's path."""
    index: int
    """What was to be committed."""
    reason: str
    """What the library said."""

    status = os.EX_IOERR
    brief = "{where}: the commit of index {index} failed: {reason}"
    sentence = (
        "The commit of index {index} to {where} failed: {reason}. Its steps are not answered, and "
        "whether they are on disk is known only when the database is read anew. The process ends, "
        "so that the next one does that."
    )


@dataclass(eq=False)
class AnotherWriterError(CommitFailedError):
    """Another process has written to an exclusive store. Nothing was committed."""

    reason: str = field(init=False)
    stood: int
    """Where this process had left it."""

    sentence = (
        "The database {where} no longer stands at index {stood}: another process has written to "
        "it. Nothing was committed. The process ends, so that the database is read anew; end the "
        "other program."
    )

    def __post_init__(self) -> None:
        self.reason = f"it no longer stands at index {self.stood}"


# What a person has asked for is not done.


@dataclass(eq=False)
class InUseError(Problem):
    """A server holds the database. Nothing has been changed."""

    where: Path
    pid: int | None

    status = os.EX_TEMPFAIL
    brief = "{where}: in use by process {pid}"
    sentence = "The database {where} is in use by process {pid}. Nothing has been changed."
    way_out = (
        "Stop the server and its standby first: with {supervisorctl:} stop 'web:*', or with Ctrl-C "
        "where fibcore serve runs."
    )


@dataclass(eq=False)
class LowerError(Problem):
    """The index asked for is lower than one that was committed. Nothing has been changed."""

    where: Path | str
    index: int
    known: int

    brief = "{where}: {index} is lower than {known}"
    sentence = (
        "The database {where} stood at index {known}: going back to {index} would hand out the "
        "indexes between a second time. Nothing has been changed."
    )
    way_out = "If that is meant, add --lower."


@dataclass(eq=False)
class LowerBesideNodesError(Problem):
    """To lower a sequence that nodes share must be asked for by its name."""

    where: str
    sequence: str

    sentence = (
        "Nodes share the sequence {sequence} in {where}. Each that runs stops serving and ends "
        "with status 65 once it finds the index lower; started again, it hands out the same "
        "indexes a second time. Nothing has been changed."
    )
    way_out = "Stop all nodes. If this is meant, add --name {sequence}."


@dataclass(eq=False)
class SteppedMeanwhileError(Problem):
    """A sequence that was copied has moved on since."""

    where: str
    target: str
    """It stands where the sequence stood."""

    sentence = (
        "{where} has moved on since {target} was set to where it stood: nodes step it. Nothing is "
        "lost yet."
    )
    way_out = "Stop them, and do this again before any node serves from {target}."


@dataclass(eq=False)
class InTheWayError(Problem):
    """There is something at the target that must not be replaced. Nothing has been changed."""

    target: Path
    reason: str

    sentence = (
        "{target} is no copy of a database, so it is not replaced: {reason}. Nothing has been "
        "changed."
    )
    way_out = "Move it away, or name another file."


@dataclass(eq=False)
class OwnFileError(InTheWayError):
    """The target is one of the files of the database itself."""

    reason: str = field(default="it is the database's own", init=False)

    sentence = "{target} is one of the database's own files."
    way_out = "Name another one."


@dataclass(eq=False)
class CopyInvalidError(Problem):
    """What is to be restored is no good copy of a database. Nothing has been changed."""

    target: Path
    reason: str

    status = os.EX_DATAERR
    sentence = "{target} can't be restored: {reason}. The database is as it was."
    way_out = "Name another copy."


class CopyMissingError(CopyInvalidError):
    """What is to be restored is not there. Nothing has been changed."""

    status = os.EX_NOINPUT


@dataclass(eq=False)
class BackupCopyDamagedError(Problem):
    """The backup copy beside a good database is damaged. Nothing has been changed."""

    where: Path | str
    reason: str

    status = os.EX_DATAERR
    sentence = "The backup copy {where} is damaged: {reason}. The database is good."
    way_out = "Check the disk; a server that runs puts another copy in its place."


@dataclass(eq=False)
class CopyFailedError(Problem):
    """The copy could not be written. The database is untouched, and so is an older copy."""

    target: Path
    reason: str

    status = os.EX_IOERR
    sentence = (
        "{target} is not written: {reason}. The database is as it was, and so is an older copy."
    )
    way_out = "Free disk space there, or name another file."


class NoFolderError(CopyFailedError):
    """The copy is to be written into a folder that is not there, or not for this user."""

    status = os.EX_CANTCREAT
    sentence = "{target} is not written: {reason}. The database is as it was."
    way_out = "Name a file in a folder that this user may write to."
