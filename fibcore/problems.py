"""The problems that a user can meet: each has fields, a message and an exit status.

A message has three parts: what happened, what it means for the state, and what to do, starting with
the remedy that loses nothing. Messages are templates (``str.format``) over the problem's fields,
and over commands as they are typed where this process runs: ``{fibcore:restore FILE}``.
"""

import errno
import os
import re
import shlex
import shutil
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Final, dataclass_transform

UNTOUCHED: Final = "It has not been changed, and nothing is served from it."
OF_A_SERVER: Final = {
    "meanwhile": "No acknowledged step is lost; no step is made in the meantime.",
    "unanswered": "No acknowledged step is lost; this server answers 503 in the meantime.",
    "retried": "The server retries automatically.",
}
"""Sentences that only a server adds, by template field."""


def typed(command: str) -> str:
    """How to type a command line of ours here: with its full path unless it is on ``PATH``."""
    name, space, arguments = command.partition(" ")
    path = Path(sys.prefix, "bin", name)
    if shutil.which(name) is not None:
        return command
    if path.is_relative_to(Path.cwd()):
        path = path.relative_to(Path.cwd())
    return f"{path}{space}{arguments}"


def explain(error: BaseException, option: str | None = None) -> str:
    """The message for ``error``: a problem's own, or ``str(error)``.

    Args:
        error: whatever was raised.
        option: the option that makes ``fibcore`` use the same database; None in a server, which
            alone adds what happens to its requests and that it retries.
    """
    if isinstance(error, Problem):
        return error.explain(option)
    if isinstance(error, MemoryError):
        return (
            "Out of memory: this needs more than the machine has, or than ulimit -v allows. "
            "The database is unchanged. Free some memory, or raise the limit."
        )
    return str(error)


def status_of(error: BaseException) -> int:
    """The exit status of a command that fails with ``error``."""
    if isinstance(error, Problem):
        return error.status
    return os.EX_OSERR if isinstance(error, MemoryError) else os.EX_IOERR


class _Command:
    """A command in a template; its arguments follow the colon."""

    def __init__(self, name: str, option: str) -> None:
        self._name = name
        self._option = option

    def __format__(self, arguments: str) -> str:
        return typed(f"{self._name} {arguments}".strip() + self._option)


class _Fields(dict[str, Any]):
    """What a template may name: ``more``, and the attributes of a problem."""

    def __init__(self, problem: "Problem", more: Mapping[str, object]) -> None:
        super().__init__(more)
        self._problem = problem

    def __missing__(self, name: str) -> object:
        return getattr(self._problem, name)


@dataclass_transform(eq_default=False, field_specifiers=(field,))
class Problem(Exception):  # noqa: N818 - the word for it
    """A problem that a user can run into: each is a dataclass."""

    status = 1
    """The exit status of a command that meets it."""
    clause: ClassVar[str] = ""
    """The template of its ``reason``, if that follows from the other fields."""

    def __init_subclass__(cls) -> None:
        dataclass(eq=False)(cls)

    def __post_init__(self) -> None:
        if self.clause:
            self.reason = self._filled(self.clause, None)

    def __str__(self) -> str:
        return self._filled(self.sentence, None)

    def explain(self, option: str | None = None) -> str:
        """The whole message, in one line; ``option`` as for the function of that name."""
        return self._filled(f"{self.sentence} {self.way_out}", option)

    @property
    def public(self) -> str:
        """What happened, for a client, who may be anyone: without paths, hosts or users."""
        text = self._filled(
            self.sentence, None, where="the store", reason="the server's log has the reason"
        )
        text = text.replace("database the store", "database")
        return text[0].upper() + text[1:]

    def _filled(self, template: str, option: str | None, **instead: object) -> str:
        more: dict[str, object] = {
            "fibcore": _Command("fibcore", option or ""),
            "supervisorctl": _Command("supervisorctl", ""),
            **{name: "" if option is not None else words for name, words in OF_A_SERVER.items()},
        }
        text = template.format_map(_Fields(self, more | instead))
        # A reason that another program gave may be a sentence already.
        text = re.sub(r"(?<=\w)\.\.(?= |$)", ".", text)
        return re.sub(r"  +", " ", text).strip()

    @property
    def sentence(self) -> str:
        """The template of what happened, and what it means for the state."""
        raise NotImplementedError

    @property
    def way_out(self) -> str:
        """The template of what to do; empty if ``sentence`` includes it."""
        return ""


class TextProblem(Problem):
    """A problem whose message is the text that it is raised with."""

    text: str

    sentence = "{text}"


# Settings, and the command line.


class SettingsError(TextProblem):
    """A setting is invalid; the text names the variable and the values that it takes."""

    others: tuple["SettingsError", ...] = ()
    """The further problems of the same settings."""

    status = os.EX_CONFIG


class StoreSettingError(Problem):
    """The store setting can't be used. No connection has been tried."""

    status = os.EX_CONFIG


class UrlInvalidError(StoreSettingError):
    """The URL of a store is invalid."""

    scheme: str
    reason: str
    """A clause, without any part of a password."""

    sentence = "FIB_STORE is not a valid {scheme} URL: {reason}. Nothing has been changed."
    way_out = "docs/scale.md shows the format."


class DriverMissingError(StoreSettingError):
    """The driver of a store is not installed."""

    scheme: str
    """That of the engine, which is also the name of the extra that installs the driver."""

    sentence = (
        "FIB_STORE is a {scheme} URL, and the driver for {scheme} is not installed. Nothing has "
        "been changed."
    )
    way_out = "Install it, in a checkout: make stores; elsewhere: pip install 'fibcore[{scheme}]'."


class CantListenError(Problem):
    """The server can't listen on ``FIB_HOST`` and ``FIB_PORT``."""

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
            # From the name lookup; see getaddrinfo(3).
            unknown = (self.error.strerror or "").partition(" (")[0]
            return (
                f"FIB_HOST={{host}} can't be resolved: {unknown}",
                "Set FIB_HOST to an address of this machine, such as 127.0.0.1",
            )
        if number == errno.EADDRNOTAVAIL:
            return (
                "FIB_HOST={host} is not an address of this machine",
                "Set FIB_HOST to one, such as 127.0.0.1",
            )
        if number == errno.EADDRINUSE:
            return (
                "FIB_PORT={port} at {host} is in use by another program",
                "Stop that program, or set FIB_PORT to another port",
            )
        if number in (errno.EACCES, errno.EPERM):
            return (
                "This user may not listen on FIB_PORT={port}: ports below 1024 need a privilege",
                "Set FIB_PORT to 1024 or higher",
            )
        return (
            "The server can't listen on FIB_HOST={host} FIB_PORT={port}: {error}",
            "Set them to an address and a port that it can listen on",
        )


class OtherStoreError(Problem):
    """A server of this folder uses another store than the command would."""

    where: str
    source: str
    """Where the setting comes from."""
    pid: int
    served: str
    """The store that the process ``pid`` uses."""

    status = os.EX_CONFIG
    sentence = (
        "Process {pid}, a server of this folder, uses the store {served}, but this command would "
        "use {where} (FIB_STORE: {source}). Nothing has been changed."
    )
    way_out = (
        "Set FIB_STORE as it is set for that server, or stop the server, or use --database FILE."
    )


class TooLargeError(TextProblem):
    """The index exceeds the largest for the kind of integer. Nothing has been changed."""


class NotAnsweringError(TextProblem):
    """No status is available: no server answers, or another program does."""

    status = os.EX_UNAVAILABLE


class NotHealthyError(TextProblem):
    """The server reports that it can't step now; the text is its reason."""

    status = os.EX_UNAVAILABLE


# What the store holds can't be trusted.


class StoreProblem(Problem):
    """A problem with the store. The request has not been carried out, and will not be."""

    where: Path | str
    """The file, or the store's URL without a password."""
    reason: str
    """A clause, such as "it is empty", or the message of the system, the library or the engine."""

    def __str__(self) -> str:
        return f"{self.where}: {self.reason}"


class DatabaseInvalidError(StoreProblem):
    """What the store holds can't be trusted, so it is not served. It has not been changed.

    Retrying doesn't help: a person must act.
    """

    known: int = field(default=0, kw_only=True)
    """The largest index that is known to have been committed there; 0 if none is."""
    known_is_last: bool = field(default=False, kw_only=True)
    """Whether it is also known that nothing was acknowledged after ``known``."""

    status = os.EX_DATAERR
    sentence = f"The database {{where}} is invalid: {{reason}}. {UNTOUCHED}"

    @property
    def way_out(self) -> str:
        if not self.known:
            return (
                "Restore it from a backup: {fibcore:restore FILE}. If it is not a database of "
                "fibcore, set FIB_STORE to another file."
            )
        if self.known_is_last:
            return "To resume at its last index, with no step lost: {fibcore:set-index {known}}."
        return (
            "To resume at the last index known to have been committed, {known}: "
            "{fibcore:set-index {known}}. If a backup has a higher index, restore that instead: "
            "{fibcore:restore FILE}."
        )


class ForeignDatabaseError(DatabaseInvalidError):
    """The database is intact but another program's, or of a later version: it is never replaced."""

    way_out = "Move it away if it should not be there, or set FIB_STORE to another file."


class LinkedDatabaseError(DatabaseInvalidError):
    """The file has more than one name, so the lock beside one name does not protect it."""

    @property
    def way_out(self) -> str:
        name = shlex.quote(str(self.where)).replace("{", "{{").replace("}", "}}")
        return (
            f"List its names with find / -xdev -samefile {name}, keep the one whose folder has the "
            f"WAL (-wal), and remove the others."
        )


class FolderUnusableError(DatabaseInvalidError):
    """The folder of the database can't be used, so its contents are unknown."""

    status = os.EX_CANTCREAT
    sentence = (
        "The folder of the database {where} can't be used: {reason}. Nothing has been changed."
    )
    way_out = "Give this user write permission there, or set FIB_STORE to a file elsewhere."


class StoreNotThereError(DatabaseInvalidError):
    """The file does not exist, and nothing beside it shows that it ever did.

    A server creates a database that has never existed; a command that only reads does not.
    """

    status = os.EX_NOINPUT
    sentence = "There is no database {where}. Nothing has been created."
    way_out = (
        "Run this where the server was started, or name the database with --database or FIB_STORE."
    )


class SequenceMissingError(StoreNotThereError):
    """A shared store has no such sequence: only ``fibcore init`` creates one."""

    reason: str = field(init=False)
    sequence: str

    sentence = "There is no sequence {sequence} in {where}. Nothing has been created."
    way_out = (
        "If there was one, FIB_STORE or FIB_SEQUENCE is wrong, or the store has lost it: correct "
        "the settings, or restore a backup: {fibcore:restore FILE}. To begin at 0: "
        "{fibcore:init}."
    )

    clause = "there is no sequence {sequence}"


class IndexTooLargeError(DatabaseInvalidError):
    """The index of the database exceeds the largest that the sequence can continue from."""

    reason: str = field(init=False)
    index: int
    """Its index."""
    largest: int
    """The largest index of the configured kind of integer."""

    sentence = (
        f"The database {{where}} is at index {{index}}, past {{largest}}, the largest in exact "
        f"arithmetic. {UNTOUCHED}"
    )
    way_out = "Set FIB_INTEGERS=uint64, which it was stepped with, or FIB_STORE to another store."

    clause = "it is at index {index}, past {largest}"


class EngineTooOldError(DatabaseInvalidError):
    """The engine of a shared store is too old for this program."""

    reason: str = field(init=False)
    version: str
    """With the engine's name: "Redis 5.0"."""
    oldest: str
    """The earliest supported version: "6.2"."""

    sentence = "The engine at {where} is {version}; {oldest} or later is required. " + UNTOUCHED
    way_out = "Upgrade it to {oldest} or later."

    clause = "it is {version}, and must be {oldest} or later"


class DatabaseMissingError(DatabaseInvalidError):
    """The database is missing, and files beside it show that there was one."""

    reason: str = field(init=False)
    remains: tuple[str, ...]
    """The names of those files."""

    sentence = (
        "The database {where} is missing, but it existed: its folder still has {remains_named}. "
        "Nothing has been changed."
    )

    clause = "it is missing, but its folder still has {remains_named}"

    @property
    def remains_named(self) -> str:
        """Those names, as a list in words."""
        return " and ".join(self.remains)

    @property
    def way_out(self) -> str:
        return (
            f"If it was moved, put it back. {super().way_out} To begin at 0 on purpose: "
            f"{{fibcore:set-index --lower 0}}."
        )


class StepsLostError(DatabaseInvalidError):
    """It is intact, but its index is lower than one that was committed, ``known``."""

    reason: str = field(init=False)
    index: int
    """Its index."""
    evidence: str
    """The name of the file that shows this."""

    sentence = (
        f"The database {{where}} is invalid: it is at index {{index}}, but {{evidence}} beside it "
        f"shows that index {{known}} was committed. Its WAL was lost or damaged, or an older copy "
        f"replaced it. {UNTOUCHED}"
    )

    clause = "it is at index {index}, but {evidence} shows that index {known} was committed"

    @property
    def way_out(self) -> str:
        return (
            f"{super().way_out} To go back, and hand out the later indexes a second time: "
            f"{{fibcore:set-index --lower {{index}}}}."
        )


class IndexRegressedError(StepsLostError):
    """The index of a shared store is lower than when this process last read it."""

    evidence: str = field(default="this process", init=False)

    sentence = (
        "{where} is at index {index}, but this process knows that index {known} was committed "
        "there. It lost steps in a crash or a failover, an older copy replaced it, or its index "
        "was set lower. This server has stopped serving from it."
    )
    way_out = (
        "Stop all its servers. To resume with no step lost: {fibcore:set-index {known}}, or a "
        "higher index if another server has logged one. To resume at {index}, start them again."
    )


# The store is unavailable.


class StoreUnavailableError(StoreProblem):
    """The store is unavailable (a full disk, a failing device, no connection).

    Nothing is lost. Retrying later may help.
    """

    status = os.EX_TEMPFAIL
    sentence = "{where} is unavailable: {reason}. {meanwhile}"
    way_out = (
        "Free disk space, replace the device, or give this user read and write permission. "
        "{retried}"
    )


class NoRightError(StoreUnavailableError):
    """This user lacks permission to read or write the store."""

    status = os.EX_NOPERM
    sentence = "This user may not use {where}: {reason}. {meanwhile}"
    way_out = "Give this user read and write permission. {retried}"


class StoreBusyError(StoreUnavailableError):
    """Another program has the database open and does not release it."""

    reason: str = field(default="it is in use by another program", init=False)

    sentence = (
        "The database {where} is in use by another program that does not release it. {meanwhile}"
    )
    way_out = "Stop that program. {retried}"


class KeysUnavailableError(StoreUnavailableError):
    """The store can't look up or save idempotency keys. Steps without a key still work."""

    sentence = (
        "{where} can't look up or save idempotency keys: {reason}. Whether an earlier request with "
        "this key has stepped is unknown; requests without a key still work."
    )
    way_out = "Free disk space, or run {fibcore:init} as the owner of the tables."


class IndexPastLimitError(StoreUnavailableError):
    """The index exceeds ``FIB_MAX_INDEX``, so its number is not computed."""

    reason: str = field(init=False)
    index: int
    largest: int
    """``FIB_MAX_INDEX``."""

    sentence = (
        "{where} is at index {index}, past FIB_MAX_INDEX={largest}, so this server serves nothing "
        "from it. Nothing is lost."
    )
    way_out = "Raise FIB_MAX_INDEX, or correct the index: {fibcore:set-index --lower N}."

    clause = "it is at index {index}, past {largest}"


class CatchingUpError(StoreUnavailableError):
    """The number at an index to which others have moved the sequence is being computed."""

    reason: str = field(init=False)
    index: int
    """The new index."""

    sentence = (
        "The sequence in {where} has moved to index {index}, and this server is computing the "
        "number there. Nothing is lost; the server serves again when that is done."
    )
    way_out = ""

    clause = "the number at index {index} is being computed"


class EngineUnavailableError(StoreUnavailableError):
    """The engine of a shared store is unreachable or unavailable."""

    sentence = "{where} is unavailable: {reason}. {unanswered}"
    way_out = "Check the engine and the network to it. {retried}"


def _last(batch: "BatchInDoubtError | BatchUnknowableError") -> str:
    return "the last step was" if batch.steps == 1 else f"the last {batch.steps} steps were"


class BatchInDoubtError(EngineUnavailableError):
    """Whether the last batch was committed is not known yet; the store is being asked."""

    reason: str = field(init=False)
    steps: int
    """How many steps the batch has."""
    error: Exception
    """The reason."""

    sentence = (
        "{where} has not confirmed yet whether {last_steps} made: {reason}. Their requests "
        "are answered once that is known; all others are answered 503 until then."
    )

    clause = "{error}"
    last_steps = property(_last)

    def explain(self, option: str | None = None) -> str:
        """With the way out of the error itself, if only a person can resolve it."""
        if not isinstance(self.error, (DatabaseInvalidError, NoRightError)):
            return super().explain(option)
        way_out = self.error._filled(self.error.way_out, option or "")
        return f"{self._filled(self.sentence, option)} {way_out} {OF_A_SERVER['retried']}"


# The process exits without answering (fail-stop).


class BatchUnknowableError(Problem):
    """Whether the last batch was committed can't be determined: its record is gone.

    The process that gets this must exit without answering (fail-stop).
    """

    where: str
    """The store's URL without a password."""
    steps: int
    """How many steps the batch has."""

    sentence = (
        "{where} no longer holds this process's record, so whether {last_steps} made can't be "
        "determined. Their requests are not answered; no acknowledged step is lost. The process "
        "exits; the next one resumes from the committed index."
    )

    last_steps = property(_last)


class CommitFailedError(Problem):
    """A commit of an exclusive store failed: the disk's contents are unknown until read again.

    The process that gets this must exit without answering (fail-stop): after a failed sync a
    second one that succeeds proves nothing. See A. Rebello et al., Can Applications Recover
    from fsync Failures?, USENIX ATC 2020.
    """

    where: Path | str
    """The database's path."""
    index: int
    """The index to be committed."""
    reason: str
    """The message of the library."""

    status = os.EX_IOERR
    sentence = (
        "The commit of index {index} to {where} failed: {reason}. Its steps are not answered; "
        "whether they are on disk is known only when the database is read again. The process exits "
        "so that the next one can do that."
    )


class AnotherWriterError(CommitFailedError):
    """Another process has written to an exclusive store. Nothing was committed."""

    reason: str = field(init=False)
    expected: int
    """The index of this process's last commit."""

    sentence = (
        "The database {where} is no longer at index {expected}: another process has written to it. "
        "Nothing was committed. The process exits so that the next one reads the database again. "
        "Stop the other program."
    )

    clause = "it is no longer at index {expected}"


# Commands that are refused or fail.


class InUseError(Problem):
    """A server holds the database. Nothing has been changed."""

    where: Path | str
    pid: int | None

    status = os.EX_TEMPFAIL
    sentence = "The database {where} is in use by process {pid}. Nothing has been changed."
    way_out = (
        "Stop the server and its standby first: {supervisorctl:} stop 'web:*', or Ctrl-C where "
        "fibcore serve runs."
    )


class LowerError(Problem):
    """The requested index is lower than one that was committed. Nothing has been changed."""

    where: Path | str
    index: int
    known: int

    sentence = (
        "The database {where} has reached index {known}: going back to {index} would hand out the "
        "indexes in between a second time. Nothing has been changed."
    )
    way_out = "If this is intended, add --lower."


class LowerBesideNodesError(Problem):
    """Lowering a sequence that nodes share requires its name."""

    where: str
    sequence: str

    sentence = (
        "Nodes share the sequence {sequence} in {where}. Each running node exits with status 65 "
        "once it finds the index lower; when started again, it hands out the same indexes a second "
        "time. Nothing has been changed."
    )
    way_out = "Stop all nodes. If this is intended, add --name {sequence}."


class SteppedMeanwhileError(Problem):
    """A sequence advanced while it was being copied."""

    where: str
    target: str
    """The copy, which has the earlier index."""

    sentence = (
        "{where} advanced after its index was copied to {target}: a server still steps it. "
        "Nothing is lost yet."
    )
    way_out = "Stop its servers, and copy again before any server uses {target}."


class InTheWayError(Problem):
    """The target exists and must not be replaced. Nothing has been changed."""

    target: Path
    reason: str

    sentence = (
        "{target} exists and is not a copy of a database, so it is not replaced: {reason}. "
        "Nothing has been changed."
    )
    way_out = "Move it away, or choose another file."


class OwnFileError(InTheWayError):
    """The target is one of the files of the database itself."""

    reason: str = field(default="it is the database's own", init=False)

    sentence = "{target} is one of the database's own files. Nothing has been changed."
    way_out = "Choose another file."


class CopyInvalidError(Problem):
    """The file to restore is not a valid copy of a database. Nothing has been changed."""

    target: Path
    reason: str

    status = os.EX_DATAERR
    sentence = "{target} can't be restored: {reason}. The database is unchanged."
    way_out = "Choose another copy."


class CopyMissingError(CopyInvalidError):
    """The file to restore does not exist. Nothing has been changed."""

    status = os.EX_NOINPUT


class BackupCopyDamagedError(Problem):
    """The backup copy beside a valid database is damaged. Nothing has been changed."""

    where: Path | str
    reason: str

    status = os.EX_DATAERR
    sentence = "The backup copy {where} is damaged: {reason}. The database is valid."
    way_out = "Check the disk; while the appliance runs, it replaces the copy automatically."


class CopyFailedError(Problem):
    """The copy could not be written. The database and any older copy are unchanged."""

    target: Path
    reason: str

    status = os.EX_IOERR
    sentence = "{target} was not written: {reason}. The database and any older copy are unchanged."
    way_out = "Free disk space there, or choose another file."


class NoFolderError(CopyFailedError):
    """The target folder does not exist, or this user may not write to it."""

    status = os.EX_CANTCREAT
    sentence = "{target} was not written: {reason}. The database is unchanged."
    way_out = "Choose a file in a folder that this user may write to."
