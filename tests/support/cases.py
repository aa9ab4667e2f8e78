"""A decorator that loops over cases in one test, where single tests would add nothing."""

import functools
import inspect
from collections.abc import Callable, Iterable
from typing import Any

Test = Callable[..., None]


def every(name: str, values: Iterable[Any]) -> Callable[[Test], Test]:
    """Like ``pytest.mark.parametrize``, but in one test, which names the first case that fails.

    Cases share their fixtures. Stacked decorators combine all cases.

    Args:
        name: of the parameter, or several, as in ``"name, number"``.
        values: the cases.
    """
    names = name.replace(",", " ").split()
    cases = [
        dict(zip(names, value, strict=True)) if len(names) > 1 else {name: value}
        for value in values
    ]

    def decorate(test: Test) -> Test:
        @functools.wraps(test)
        def run(**fixtures: object) -> None:
            for case in cases:
                try:
                    test(**fixtures, **case)
                except BaseException as error:
                    error.add_note(f"with {case}")
                    raise

        signature = inspect.signature(test)
        kept = [each for each in signature.parameters.values() if each.name not in names]
        run.__signature__ = signature.replace(parameters=kept)  # type: ignore[attr-defined]
        return run

    return decorate
