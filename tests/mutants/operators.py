"""A kind of change that the tool does not have: a statement is left out.

A call whose result nobody uses, an assignment to an attribute, and a ``raise`` are there for what
they do; whether it is done is what a test must see. (A sync that is left out changes no value.)
"""

from collections.abc import Iterator
from typing import Any, Final

from parso.python.tree import Keyword

Position = tuple[tuple[int, int], tuple[int, int]]


class RemoveStatement:
    """Puts ``pass`` in the place of a statement; an operator of cosmic-ray's."""

    @classmethod
    def arguments(cls) -> tuple[()]:
        return ()

    def mutation_positions(self, node: Any) -> Iterator[Position]:
        if node.type == "simple_stmt" and _does_something(node.children[0]):
            yield (node.start_pos, node.end_pos)

    def mutate(self, node: Any, _: int) -> Any:
        statement = node.children[0]
        node.children[0] = Keyword("pass", statement.start_pos, statement.get_first_leaf().prefix)
        return node


def _does_something(statement: Any) -> bool:
    if statement.type == "atom_expr":
        return bool(statement.children[-1].type == "trailer")
    if statement.type == "expr_stmt":
        # One that only says a type does nothing.
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
