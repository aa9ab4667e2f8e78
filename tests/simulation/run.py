"""One run: ``run`` executes a plan and checks the result. Next: ``base``, ``judge``."""

from dataclasses import dataclass, field

from tests.simulation import judge
from tests.simulation.base import Run
from tests.simulation.machine import MachineRun
from tests.simulation.nodes import EngineRun
from tests.simulation.plan import Plan
from tests.simulation.sabotages import NONE, Sabotage
from tests.simulation.world import Violation


@dataclass
class Outcome:
    plan: Plan
    violation: BaseException | None
    trace: list[str] = field(default_factory=list)
    seconds: float = 0.0
    """Simulated."""
    steps: int = 0


def run(plan: Plan, sabotage: Sabotage = NONE, *, tracing: bool = False) -> Outcome:
    """Execute a plan and check the result."""
    kind = MachineRun if plan.store == "file" else EngineRun
    made: Run = kind(plan, sabotage, tracing=tracing)
    outcome = Outcome(plan, None)
    try:
        made.execute()
        outcome.steps = judge.judge(made)
    except AssertionError as error:
        outcome.violation = error
    except Exception as error:  # The seed is reported and the search continues.
        outcome.violation = Violation(f"the simulation itself failed: {error!r}")
        outcome.violation.__cause__ = error
    finally:
        made.world.close()
    outcome.trace = made.world.trace
    outcome.seconds = made.world.now
    return outcome
