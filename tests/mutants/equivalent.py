"""Mutants that no test can kill, and why: to whoever uses the program they are the same program.

``EQUIVALENT`` names each by its file's name, the line as it is, and the line as the mutant has it,
without what surrounds them. ``FIGURES`` names lines of a figure that was chosen, the first in them,
of which one more or less does as well. ``PLACEHOLDERS`` names lines that say what there is and of
which kind: another value stands there before anybody looks. None of these is tried.
"""

import re
from typing import Final


def is_equivalent(file: str, before: str, after: str) -> bool:
    """Whether the mutant is known to be the same program; ``file`` is a name without its folder."""
    if (file, before, after) in EQUIVALENT:
        return True
    name = before.partition(" = ")[0]
    if (file, before) in PLACEHOLDERS and (after == "pass" or after.startswith(f"{name} = ")):
        return True
    figure = re.compile(r"-?\s*\b\d[\d_]*(?:\.\d+)?\b")
    return (file, before) in FIGURES and (
        figure.sub(" #", after, count=1).split() == figure.sub(" #", before, count=1).split()
    )


FIELDS: Final = "int(text[:19]), text[20:26].decode().strip(), text[27:43].decode().strip()"

SLOW: Final = "return elapsed > PATIENCE_SECONDS and self._taken() < LEAST_RATE * elapsed"
PATIENT: Final = "return elapsed < PATIENCE_SECONDS / 2 or unsent * elapsed <= self._taken() * left"

FIGURES: Final = {
    ("backup.py", "SAID_SECONDS: Final = 3600.0"),
    ("connections.py", "IDLE_SECONDS: Final = 5.0"),
    ("connections.py", "MAX_EXCHANGES: Final = 32"),
    ("connections.py", "LEAST_RATE: Final = 65_536"),
    ("connections.py", "FEW: Final = 64"),
    ("connections.py", "if self.now - self._looked > SWEEP_SECONDS / 10:"),
    ("connections.py", "PATIENCE_SECONDS: Final = 2.0"),
    ("turns.py", "AT_ONCE: Final = 8"),
    ("heads.py", "MAX_KNOWN_SIZE: Final = 2048"),
    ("heads.py", "MAX_HEADS: Final = 512"),
    ("heads.py", "MAX_SEEN: Final = 1024"),
    ("backup.py", "self._said = 0.0"),
    ("liveness.py", "MOST_PASSED: Final = 1.0"),
    ("liveness.py", "STOPPED_SECONDS: Final = 2.0"),
    ("lock.py", 'return int(os.pread(fd, 32, 0) or b"0")'),
    ("lock.py", "return int(os.pread(self._fd, 32, 0))"),
    ("stepper.py", "self._enough = waiting * 9 // 8"),
    ("connection.py", PATIENT),
    ("sqlite_file.py", "BUSY_SECONDS: Final = 5.0"),
    ("sqlite.py", "WAL_PAGES: Final = 250"),
    ("sqlite.py", "FRAME_HEADER_SIZE: Final = 24"),
    ("high_water_mark.py", "for _ in range(3):"),
    ("high_water_mark.py", 'return BOOT_ID.read_text().replace("-", "")[:16]'),
    ("admission.py", "UNCOUNTED_DIGITS: Final = 4096"),
    ("admission.py", "SHED_AT_ONCE: Final = 50"),
    ("negotiation.py", "MAX_FIELD: Final = 1024"),
    ("negotiation.py", "@functools.lru_cache(maxsize=256)"),
}

PLACEHOLDERS: Final = {
    ("shared.py", "self._asking: list[Look] = []"),
    ("shared.py", "self._question = _Question(0, None)"),
    ("stepper.py", "self._oldest = 0.0"),
    ("stepper.py", "self._batch_oldest = 0.0"),
    ("connection.py", "self.deadline = 0.0"),
    ("connection.py", "self._blocked_since = 0.0"),
    ("connection.py", "self._blocked_size = 0"),
    ("connection.py", "self._unsent = 0"),
    ("connection.py", "self._unsent_since = 0.0"),
    ("connections.py", "self.now = 0.0"),
    ("connections.py", "self._looked = 0.0"),
    ("connections.py", "self.stop_deadline = 0.0"),
    ("connections.py", "self.idle_deadline = 0.0"),
    ("connections.py", "self.receive_deadline = 0.0"),
    ("connections.py", "self.lines = Lines()"),
}

EQUIVALENT: Final[dict[tuple[str, str, str], str]] = {
    (
        "sqlite.py",
        "raise StoreBusyError(self._path)",
        "pass",
    ): "of an index that was moved meanwhile: the high-water mark is not set back either, and the "
    "commit that follows fails; where the WAL is held, the tests see it",
    (
        "backup.py",
        "if kept is not None and index < kept:",
        "if kept is not None and index <= kept:",
    ): "where they are alike it has returned before",
    (
        "connections.py",
        "if self.now - self._looked > SWEEP_SECONDS / 10:",
        "if self.now - self._looked >= SWEEP_SECONDS / 10:",
    ): "at that very moment either look does",
    (
        "admission.py",
        "def __init__(self, *, max_waiting: int, max_in_flight: int, max_shed: int = 0) -> None:",
        "def __init__(self, *, max_waiting: int, max_in_flight: int, max_shed: int = -1) -> None:",
    ): "either is none",
    (
        "__init__.py",
        "@property",
        "",
    ): "of a protocol, which says to no program what there is",
    **{
        ("heads.py", "self._seen = [0] * MAX_SEEN", f"self._seen = [ {each}] * MAX_SEEN"): "none"
        for each in ("-1", "1")
    },
    **{
        ("high_water_mark.py", FIELDS, FIELDS.replace(*each)): "the space before it is taken away"
        for each in (("[20", "[ 19"), ("[27", "[ 26"))
    },
    (
        "sqlite_file.py",
        'there.execute("PRAGMA synchronous = off")',
        "pass",
    ): "what is synced as a whole in the end is then synced twice",
    (
        "stepper.py",
        "self._enough = waiting * 9 // 8",
        "self._enough = waiting * 9 // 7",
    ): "a figure that was chosen",
    (
        "parser.py",
        'raise MalformedError("it ends where it should not")',
        "pass",
    ): "httptools, as it is, begins no other request there",
    (
        "parser.py",
        "self._parser = None",
        "pass",
    ): "httptools goes on after an upgrade, too, though it does not say so",
    (
        "parser.py",
        "end = min(self._end(data, at), at + max(1, min(room, MAX_HEAD)))",
        "end = min(self._end(data, at), at + max( 2, min(room, MAX_HEAD)))",
    ): "past the bound by a byte or by two",
    (
        "connection.py",
        "return 1, self.deadline",
        "return 0, self.deadline",
    ): "a deadline is to come, and one that is idle has been so before",
    (
        "connection.py",
        "self._more_to_do = False",
        "self._more_to_do = True",
    ): "the next answer takes the longer way, which ends as the other",
    **{
        ("connection.py", line, line.replace(less, more)): "at that very moment either does"
        for line, less, more in (
            (SLOW, "elapsed > ", "elapsed >= "),
            (PATIENT, "elapsed < ", "elapsed <= "),
            (PATIENT, "elapsed <= self", "elapsed < self"),
            ("now - self._unsent_since > self.hub.send_timeout", " > ", " >= "),
            ("elif now > self.deadline:", " > ", " >= "),
        )
    },
    (
        "connections.py",
        "self.headers = headers",
        "pass",
    ): "the lines are made anew each time",
    (
        "connections.py",
        "self.let_part_go(oldest)",
        "pass",
    ): "who gives way lets go of it, too",
    (
        "connection.py",
        "return -1, self.deadline",
        "return - 2, self.deadline",
    ): "their order counts",
    (
        "parser.py",
        "found = (self._tail + data[at : at + 3]).find(EMPTY_LINE)",
        "found = (self._tail + data[at : at + 4]).find(EMPTY_LINE)",
    ): "an empty line that lies behind the tail is found at its place, too",
    (
        "connection.py",
        "return 2, self._blocked_since",
        "return 3, self._blocked_since",
    ): "their order counts",
    (
        "connection.py",
        "raise NotImplementedError",
        "pass",
    ): "it never comes to it",
    (
        "protocol.py",
        "self._more_to_do = False",
        "pass",
    ): "the next answer takes the longer way, which ends as the other",
    (
        "protocol.py",
        "self._more_to_do = False",
        "self._more_to_do = True",
    ): "the next answer takes the longer way, which ends as the other",
    (
        "protocol.py",
        "self._partly = False",
        "pass",
    ): "of what is not kept nothing is let go",
    (
        "protocol.py",
        "self._partly = False",
        "self._partly = True",
    ): "of what is not kept nothing is let go",
    (
        "protocol.py",
        "self._taking = True",
        "pass",
    ): "what a client still sends is read a little earlier, and kept",
    (
        "protocol.py",
        "self._taking = True",
        "self._taking = False",
    ): "what a client still sends is read a little earlier, and kept",
    (
        "heads.py",
        'raise AssertionError("this request is for Starlette")',
        "pass",
    ): "it never comes to it",
    **{
        ("protocol.py", "if len(pieces) == 1:", f"if len(pieces) == {count}:"): "there are one or "
        "three, and one may be written as several are"
        for count in (0, 2)
    },
    (
        "protocol.py",
        "self.transport.write(pieces[0])",
        "self.transport.write(pieces[ -1])",
    ): "the first of one is its last",
    (
        "connection.py",
        "self._partly = False",
        "self._partly = True",
    ): "nothing is counted of one of which nothing is kept",
    (
        "stepper.py",
        "if self._special or index + steps > self._max_index:",
        "if self._special or index + steps >= self._max_index:",
    ): "the batch is looked at one by one, which takes longer and gives the same",
    (
        "stepper.py",
        "self._special = False",
        "self._special = True",
    ): "the batches to come are looked at one by one, which takes longer and gives the same",
    (
        "stepper.py",
        "self._special = False",
        "pass",
    ): "the batches to come are looked at one by one, which takes longer and gives the same",
    (
        "negotiation.py",
        "@functools.lru_cache(maxsize=256)",
        "",
    ): "what is kept is what would be found again",
    (
        "negotiation.py",
        "qualities = {Representation.JSON: 0.0, Representation.TEXT: 0.0}",
        "qualities = {Representation.JSON: 0.0, Representation.TEXT: -1.0}",
    ): "text that is not named is not above the least that JSON may be, 0",
    (
        "negotiation.py",
        'specificity = {"*/*": 0, kind: 1, exact: 2}.get(name, -1)',
        'specificity = {"*/*": 0, kind: 1, exact: 3}.get(name, -1)',
    ): "their order counts",
    (
        "negotiation.py",
        'specificity = {"*/*": 0, kind: 1, exact: 2}.get(name, -1)',
        'specificity = {"*/*": 0, kind: 1, exact: 2}.get(name, - 2)',
    ): "their order counts",
    (
        "settings.py",
        "number = -1.0",
        "number = - 2.0",
    ): "either is below every bound",
    (
        "settings.py",
        "_whole(1, MAX_INDEX),",
        "_whole( 2, MAX_INDEX),",
    ): "this setting is read by its kind of integer, and that of the table by nobody",
    (
        "settings.py",
        "_whole(1, MAX_INDEX),",
        "_whole( 0, MAX_INDEX),",
    ): "this setting is read by its kind of integer, and that of the table by nobody",
    (
        "settings.py",
        "@dataclass(frozen=True, kw_only=True)",
        "@dataclass(frozen=True, kw_only=False)",
    ): "whoever makes one names each",
}
