"""What every run is held against: ``bench.checker``, and what its clients are owed besides."""

from typing import TYPE_CHECKING, Final

from bench.checker import Operation, check
from tests.simulation.clients import Client
from tests.simulation.world import Violation

if TYPE_CHECKING:
    from tests.simulation.run import Run


PROMPT_SECONDS: Final = 5.0
"""In which a step is answered when all is well."""


def last_script(client: Client) -> None:
    """What is asked when all is well again: it is answered, and promptly."""
    client.patience = PROMPT_SECONDS
    # Of a connection that nobody has used since the faults, it may find out by this one.
    client.probe()
    client.pause(2.0)
    for endpoint in ("current", "next", "previous", "next"):
        client.ask(endpoint)


def judge(run: "Run") -> int:
    """Hold a run against the promises; return how many steps were answered.

    Raises:
        WrongAnswer, Violation: one was broken.
    """
    history = run.history
    last = run.cluster.index()
    for start, end, name in history.waited:
        if end > run.end_of_faults + 2 * PROMPT_SECONDS:
            raise Violation(f"{name} waited from {start:.3f} s to {end:.3f} s in vain")
    for name, (start, endpoints) in history.waiting.items():
        if run.world.now - start > 2 * PROMPT_SECONDS:
            raise Violation(f"{name} waits since {start:.3f} s")
        # The run ends before they are told.
        history.operations += [Operation(each, start) for each in endpoints]
    summary = check(history.operations, first=0, last=last)
    if last > run.plan.max_index and not history.jumps:
        raise Violation(f"stepped to {last}, past {run.plan.max_index}")
    for when, name, answer in history.refused:
        if answer.status not in (409, 503):
            raise Violation(f"{name} was answered {answer.status} at {when:.3f} s: {answer.body!r}")
        if answer.status == 409 and last < run.plan.max_index:
            raise Violation(f"{name} was answered 409 at {when:.3f} s, and the index is {last}")
        if answer.status == 503 and (not run.plan.faults or name.startswith("last")):
            raise Violation(f"{name} was answered 503 at {when:.3f} s: {answer.body!r}")
    if not run.plan.faults and history.lost:
        raise Violation(f"{history.lost} connections broke, without a fault")
    stopped = {each.kind for each in run.plan.faults} <= {"restart", "kill", "clock", "jump"}
    if stopped and (unanswered := sum(each.unanswered for each in run.servers)):
        raise Violation(f"{unanswered} requests were not answered before a stop")
    return summary.steps
