"""Cases that are looped over in one test, where a test for each would only be more to count."""

import functools
import inspect
from collections.abc import Callable, Iterable
from typing import Any

Test = Callable[..., None]


def every(name: str, values: Iterable[Any]) -> Callable[[Test], Test]:
    """As ``pytest.mark.parametrize``, in one test: it fails at the first case, and says which.

    The cases share their fixtures. Several of these make every pair.

    Args:
        name: of the parameter, or of several, as in ``"name, number"``.
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
