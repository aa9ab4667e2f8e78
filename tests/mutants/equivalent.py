"""Mutants that no test can kill: to whoever uses the program they are the same program.

A comment behind the line, or on one of its own before it, names them and says why:

    FEW: Final = 64  # pragma: no mutate number: a chosen figure

Without a kind (``KINDS``) all mutants of the line are meant. Nobody runs what is in a ``Protocol``.
"""

import ast
import re
from typing import Final

KINDS: Final = {
    "number": ("NumberReplacer", "UnaryOperator"),
    "boundary": ("_Lt_LtE", "_LtE_Lt", "_Gt_GtE", "_GtE_Gt"),
    "boolean": ("FalseWithTrue", "TrueWithFalse"),
    "removal": ("RemoveStatement", "RemoveDecorator"),
}
"""Parts of the names of their operators."""

PRAGMA: Final = re.compile(r"# pragma: no mutate(?: (?P<kinds>[a-z, ]+))?: \S.*")


class Equivalent:
    """The mutants of one module that are not to be tried.

    Raises:
        KeyError: a comment names a kind that there is not.
    """

    def __init__(self, source: str) -> None:
        self._operators: dict[int, tuple[str, ...]] = {}
        for number, line in enumerate(source.splitlines(), 1):
            if found := PRAGMA.search(line):
                at = number + 1 if line.lstrip().startswith("#") else number
                kinds = found["kinds"].split(", ") if found["kinds"] else []
                self._operators[at] = sum((KINDS[kind] for kind in kinds), ()) or ("",)
        if not re.search(r"(?m)^from typing import .*\bProtocol\b", source):
            return
        for node in ast.walk(ast.parse(source)):
            if isinstance(node, ast.ClassDef) and "Protocol" in map(ast.unparse, node.bases):
                assert node.end_lineno is not None
                self._operators |= dict.fromkeys(range(node.lineno, node.end_lineno + 1), ("",))

    def has(self, line: int, operator: str) -> bool:
        """Whether a mutant is equivalent that an ``operator`` of this name makes at a ``line``."""
        return any(each in operator for each in self._operators.get(line, ()))
