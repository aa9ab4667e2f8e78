"""Plants defects, to show that seeds find them; each is a small change of the product's source.

python -m tests.simulation --bug batches_have_no_identity --seeds 1000
"""

import builtins
import contextlib
import dis
import inspect
import sys
import types
from collections.abc import Callable, Iterator
from typing import Any

from tests.simulation.bug import Bug
from tests.simulation.engine_bugs import ENGINE_BUGS
from tests.simulation.machine_bugs import MACHINE_BUGS

BUGS = {**ENGINE_BUGS, **MACHINE_BUGS}


@contextlib.contextmanager
def planted(name: str | None) -> Iterator[None]:
    """Plant the defect of this name while the context lasts; None: plant nothing."""
    with contextlib.ExitStack() as stack:
        if name is not None:
            for each in (BUGS[name], *BUGS[name].also):
                stack.enter_context(_planted(each))
        yield


@contextlib.contextmanager
def _planted(bug: Bug) -> Iterator[None]:
    was = vars(bug.owner)[bug.name]
    if isinstance(was, str | tuple):
        texts = [was] if isinstance(was, str) else was
        (found,) = (each for each in texts if bug.before in each)
        new = [changed(each, bug) if each is found else each for each in texts]
        setattr(bug.owner, bug.name, new[0] if isinstance(was, str) else tuple(new))
        try:
            yield
        finally:
            setattr(bug.owner, bug.name, was)
    else:
        # Unwrap a property or a class method.
        function = inspect.unwrap(getattr(was, "fget", None) or getattr(was, "__func__", was))
        code = function.__code__
        # Change the code in place: tables refer to the function object.
        function.__code__ = compiled(function, bug)
        try:
            yield
        finally:
            function.__code__ = code


def changed(text: str, bug: Bug) -> str:
    """Return the text with the defect in it."""
    if text.count(bug.before) != 1:
        raise ValueError(
            f"{bug.name} contains {bug.before!r} {text.count(bug.before)} times, not once"
        )
    return text.replace(bug.before, bug.after)


def compiled(function: Callable[..., Any], bug: Bug) -> types.CodeType:
    """Return the code of the function with the defect in it."""
    source = changed(inspect.getsource(function), bug)
    made: dict[str, Any] = {}
    module = sys.modules[function.__module__]
    is_method = source.startswith(" ")
    if is_method:
        # ``super()`` needs the variable ``__class__`` in an enclosing scope.
        source = f"def make(__class__):\n{source}\n    return {function.__name__}"
    exec(compile(source, f"<{bug.name}>", "exec"), {**vars(module)}, made)
    new = made["make"](bug.owner) if is_method else made[function.__name__]
    found = inspect.unwrap(getattr(new, "fget", None) or getattr(new, "__func__", new))
    assert isinstance(found, types.FunctionType)
    known = {*vars(module), *vars(builtins)}
    asked = {each.argval for each in dis.get_instructions(found) if each.opname == "LOAD_GLOBAL"}
    if unknown := asked - known:
        raise ValueError(f"{bug.name} uses names that its module does not define: {unknown}")
    return found.__code__
