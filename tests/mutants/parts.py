"""The modules to mutate, their tests, and the operators. Add new modules here.

Modules are glob patterns from the top of the project.
"""

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True)
class Part:
    """Modules, and the tests that must kill their mutants."""

    modules: tuple[str, ...]
    tests: tuple[str, ...]
    """Put the most sensitive first: a run ends at the first failure."""
    share: int = 1
    """One mutant in so many is tried, where all would take hours."""


LONG: Final = "-knot endless and not test_a_flipped_bit_never_changes_the_index"
"""Skips tests that take longer than the rest of their file."""

SEEDS: Final = tuple(
    f"tests/simulation/test_seeds.py::test_no_promise_is_broken_with_any_seed[{piece}]"
    for piece in range(4)
)
"""The tests of the simulation, for ``--seeds``."""

CONNECTIONS: Final = (
    "tests/http/test_deadlines.py",
    "tests/http/test_hub.py",
    "tests/http/test_kernel.py",
    "tests/http/test_turns.py",
    "tests/http/test_pipelining.py",
    "tests/http/test_access_log.py::test_the_protocol_logs_each_answer_and_its_client",
    "tests/http/test_any_order.py::test_in_any_order_all_is_answered_and_memory_is_accounted_for",
    "tests/http/test_protocol_differences.py",
)

PARTS: Final[dict[str, Part]] = {
    "stepper": Part(
        ("fibcore/stepper.py",),
        (
            "tests/stepping/test_stepper.py",
            "tests/stepping/test_fail_stop.py",
            "tests/stepping/test_keys.py",
        ),
    ),
    "shared": Part(
        ("fibcore/shared_stepper.py",),
        (
            "tests/stepping/test_shared_stepper_problems.py",
            "tests/stepping/test_idle_node.py",
            "tests/stepping/test_keys.py",
        ),
    ),
    "engine": Part(("fibcore/stores/engine.py",), ("tests/stores/test_identity.py",)),
    "service": Part(("web/service.py",), ("tests/server/test_service.py",)),
    "admission": Part(("fibcore/admission.py",), ("tests/stepping/test_admission.py",)),
    "database": Part(
        ("fibcore/stores/sqlite.py", "fibcore/stores/sqlite_file.py"),
        (
            "tests/stores/test_sqlite_store.py",
            "tests/stores/test_sqlite_errors.py",
            "tests/stores/test_opening.py",
            "tests/stores/test_sqlite_file.py",
            "tests/stores/test_high_water_mark.py",
            "tests/stores/test_power_cut_marks.py",
            LONG,
        ),
    ),
    "high_water_mark": Part(
        ("fibcore/stores/high_water_mark.py",),
        (
            "tests/stores/test_high_water_mark.py",
            "tests/stores/test_power_cut_marks.py",
            "tests/faults/test_power_cut_after_commands.py",
            LONG,
        ),
    ),
    "lock": Part(
        ("fibcore/stores/files.py", "fibcore/stores/lock.py", "fibcore/stores/opening.py"),
        ("tests/stores/test_lock.py", "tests/stores/test_opening.py"),
    ),
    "conditions": Part(
        ("fibcore/stores/__init__.py",),
        ("tests/command/test_problems.py", "tests/stores/test_opening.py"),
    ),
    "keys": Part(
        ("fibcore/idempotency_key.py", "fibcore/stores/keys.py"),
        (
            "tests/core/test_idempotency_key.py",
            "tests/stores/test_keys.py",
            "tests/stepping/test_keys.py",
        ),
    ),
    "urls": Part(("fibcore/stores/urls.py",), ("tests/stores/test_urls.py",)),
    "doubling": Part(("fibcore/doubling.py",), ("tests/core/test_doubling.py",)),
    "settings": Part(
        ("fibcore/appliance/settings.py",),
        ("tests/appliance/test_settings.py", "tests/appliance/test_configuration.py"),
    ),
    "negotiation": Part(("web/http/negotiation.py",), ("tests/http/test_negotiation.py",)),
    "origins": Part(("web/http/origins.py",), ("tests/http/test_origins.py",)),
    "parser": Part(
        ("web/http/parser.py", "web/http/heads.py"),
        (
            "tests/http/test_known_heads.py",
            "tests/http/test_parser.py",
            "tests/http/test_deadlines.py",
            "tests/http/test_hub.py",
            "tests/http/test_pipelining.py",
            "tests/http/test_protocol_differences.py",
            "tests/http/test_protocol.py::test_a_head_past_its_bound_is_rejected_without_being_kept",
            "tests/http/test_protocol.py::test_valid_requests_split_anywhere_are_answered_alike",
        ),
    ),
    "connections": Part(
        ("web/http/connection.py", "web/http/hub.py", "web/http/kernel.py"), CONNECTIONS
    ),
    "protocol": Part(("web/http/protocol.py",), CONNECTIONS),
    "watchdog": Part(
        ("supervise/watchdog.py", "supervise/liveness.py", "fibcore/appliance/heartbeat.py"),
        (
            "tests/supervise/test_watchdog_rules.py",
            "tests/supervise/test_watchdog.py",
            "tests/appliance/test_heartbeat.py",
            "tests/supervise/test_listeners.py",
            LONG,
        ),
    ),
    "extension": Part(("supervise/extension.py",), ("tests/supervise/test_extension.py",)),
    "backup": Part(
        ("supervise/backup.py",),
        ("tests/supervise/test_backup.py", "tests/supervise/test_listeners.py"),
    ),
}

OPERATORS: Final = (
    "fibcore/RemoveStatement",
    "core/AddNot",
    "core/ExceptionReplacer",
    "core/NumberReplacer",
    "core/RemoveDecorator",
    "core/ReplaceAndWithOr",
    "core/ReplaceOrWithAnd",
    "core/ReplaceBreakWithContinue",
    "core/ReplaceContinueWithBreak",
    "core/ReplaceFalseWithTrue",
    "core/ReplaceTrueWithFalse",
    "core/ZeroIterationForLoop",
    "core/ReplaceUnaryOperator_Delete_Not",
    "core/ReplaceUnaryOperator_USub_UAdd",
    *(
        f"core/ReplaceBinaryOperator_{before}_{after}"
        for before, after in (
            ("Add", "Sub"),
            ("Sub", "Add"),
            ("Mul", "FloorDiv"),
            ("FloorDiv", "Mul"),
            ("Mod", "Mul"),
            ("Pow", "Mul"),
            ("BitAnd", "BitXor"),
        )
    ),
    *(
        f"core/ReplaceComparisonOperator_{before}_{after}"
        for before, after in (
            ("Eq", "NotEq"),
            ("NotEq", "Eq"),
            ("Lt", "LtE"),
            ("Lt", "GtE"),
            ("LtE", "Lt"),
            ("LtE", "Gt"),
            ("Gt", "GtE"),
            ("Gt", "LtE"),
            ("GtE", "Gt"),
            ("GtE", "Lt"),
            ("Is", "IsNot"),
            ("IsNot", "Is"),
        )
    ),
)
"""One change of each kind: comparisons are inverted and shifted by one, additions become
subtractions. The other operators of cosmic-ray are redundant or change annotations."""
