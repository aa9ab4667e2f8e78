"""Checks a finished run: its history, and that all requests were answered properly."""

from typing import TYPE_CHECKING, Final

from tests.simulation.clients import Client
from tests.simulation.world import Violation
from tests.support.checker import Operation

if TYPE_CHECKING:
    from tests.simulation.base import Run

PROMPT_SECONDS: Final = 5.0
"""Time limit of a request while no fault is active."""

FINAL_ENDPOINTS: Final = ("current", "next", "previous", "next")
"""The final requests, after the last fault."""


def send_final_requests(client: Client) -> None:
    """Send the final requests, which must be answered promptly."""
    client.timeout = PROMPT_SECONDS
    # A server may notice only now that its idle connection to the engine is broken.
    client.probe()
    client.pause(2.0)
    for endpoint in FINAL_ENDPOINTS:
        answer = client.ask(endpoint)
        client.history.final_statuses.append(0 if answer is None else answer.status)


def judge(run: "Run") -> int:
    """Check a run against the promises; return the number of answered steps.

    Raises:
        WrongAnswer, Violation: a promise was broken.
    """
    history, plan = run.history, run.plan
    for start, end, name in history.timeouts:
        # A stopped node answers nothing: unlike a machine's server it has no watchdog here.
        if (
            end > run.end_of_faults + 2 * PROMPT_SECONDS
            or "stop" not in run.kinds
            or run.is_watched
        ):
            raise Violation(f"{name} got no answer from {start:.3f} s to {end:.3f} s")
    for name, (start, endpoint) in history.in_flight.items():
        if run.world.now - start > 2 * PROMPT_SECONDS:
            raise Violation(f"{name} has been waiting since {start:.3f} s")
        if endpoint is not None:  # The run ends before it is answered.
            history.operations.append(Operation(endpoint, start))
    for start in history.pending_keys.values():
        history.record_unknown(start)
    steps = run.check_history()
    last = run.index()
    if last > plan.max_index and not history.skipped:
        raise Violation(f"the index is {last}, above the maximum {plan.max_index}")
    for when, name, answer in history.errors:
        if answer.status not in (409, 503):
            raise Violation(f"{name} was answered {answer.status} at {when:.3f} s: {answer.body!r}")
        if answer.status == 409 and last < plan.max_index and not run.lowered:
            raise Violation(f"{name} was answered 409 at {when:.3f} s, and the index is {last}")
        if answer.status == 503 and (
            run.kinds <= run.harmless or when > run.end_of_faults + 2 * PROMPT_SECONDS
        ):
            raise Violation(f"{name} was answered 503 at {when:.3f} s: {answer.body!r}")
    if not plan.faults and history.broken_connections:
        raise Violation(f"{history.broken_connections} connections broke without a fault")
    if len(history.final_statuses) != len(FINAL_ENDPOINTS) * plan.nodes or not set(
        history.final_statuses
    ) <= {200, 409}:
        raise Violation(f"the final requests were answered {history.final_statuses}")
    return steps
