"""An operator that cosmic-ray lacks: remove a statement.

It removes calls whose result is unused, assignments to attributes, and ``raise``. These matter only
by their effect, which a test must notice: a missing sync, for example, changes no value.
"""

from collections.abc import Iterator
from typing import Any, Final

from parso.python.tree import Keyword

Position = tuple[tuple[int, int], tuple[int, int]]


class RemoveStatement:
    """Replaces a statement by ``pass``; an operator for cosmic-ray."""

    @classmethod
    def arguments(cls) -> tuple[()]:
        return ()

    def mutation_positions(self, node: Any) -> Iterator[Position]:
        if node.type == "simple_stmt" and _has_an_effect(node.children[0]):
            yield (node.start_pos, node.end_pos)

    def mutate(self, node: Any, _: int) -> Any:
        statement = node.children[0]
        node.children[0] = Keyword("pass", statement.start_pos, statement.get_first_leaf().prefix)
        return node


def _has_an_effect(statement: Any) -> bool:
    if statement.type == "atom_expr":
        return bool(statement.children[-1].type == "trailer")
    if statement.type == "expr_stmt":
        # A bare annotation has no effect.
        is_set = (
            statement.children[1].type != "annassign" or len(statement.children[1].children) > 2
        )
        return bool(statement.children[0].type == "atom_expr" and is_set)
    return bool(statement.type == "raise_stmt")


class Provider:
    """Provides the operator to cosmic-ray."""

    operators: Final = {"RemoveStatement": RemoveStatement}

    def __iter__(self) -> Iterator[str]:
        return iter(self.operators)

    def __getitem__(self, name: str) -> type[RemoveStatement]:
        return self.operators[name]
