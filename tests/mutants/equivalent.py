"""Equivalent mutants, which no test can kill because the program behaves the same.

A comment at the end of the line, or on the line before, marks them and says why:

    FEW: Final = 64  # pragma: no mutate number: a chosen figure

Without a kind (``KINDS``) it covers all mutants of the line. The body of a ``Protocol`` never runs.
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
"""Kinds, and parts of the names of their operators."""

PRAGMA: Final = re.compile(r"# pragma: no mutate(?: (?P<kinds>[a-z, ]+))?: \S.*")


class Equivalent:
    """The equivalent mutants of a module.

    Raises:
        KeyError: a comment names an unknown kind.
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
        """Whether the mutant of ``operator`` (a name) at ``line`` is equivalent."""
        return any(each in operator for each in self._operators.get(line, ()))
