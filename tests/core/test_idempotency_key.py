"""The form of an idempotency key."""

import re

from hypothesis import example, given
from hypothesis import strategies as st

from fibcore.stores import key_of

FORM = re.compile(rb'"(0|[1-9][0-9]{0,18}):[A-Za-z0-9_-]{16,64}"')

VALID = st.from_regex(FORM, fullmatch=True)
CHANGED = st.builds(
    lambda key, at, size, byte: key[: at % len(key)] + byte + key[at % len(key) + size :],
    *(VALID, st.integers(0, 99), st.integers(0, 1), st.binary(max_size=1)),
)


@given(VALID | CHANGED | st.binary(max_size=30))
@example(b'""')
@example(b'"00:abcdefghijklmnop"')
@example(b'"9999999999999999999:abcdefghijklmnop"')
@example(b'"1:%b"' % (15 * b"a"))
@example(b'"1:%b"' % (65 * b"a"))
def test_a_key_has_the_documented_form(field: bytes) -> None:
    found, key = FORM.fullmatch(field), key_of(field)
    assert (key is None) == (found is None)
    if found and key:
        assert key.since == min(int(found[1]), 2**63 - 1)
        assert key == key_of(field)
        assert key != key_of(field[:-2] + (b"B" if field[-2:-1] == b"A" else b"A") + b'"')
