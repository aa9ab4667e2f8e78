"""An idempotency key: its form, and the part that is kept."""

import re
from hashlib import blake2b

from hypothesis import example, given
from hypothesis import strategies as st

from fibcore.stores import Key, key_of

FORM = '"(0|[1-9][0-9]{0,18}):[A-Za-z0-9_-]{16,64}"'

KEY = b'"12:abcdefghijklmnop"'


def test_a_key_has_an_index_and_random_characters() -> None:
    key = key_of(KEY)
    assert key is not None
    assert (key.since, key.digest.hex()) == (12, "d65180433e7f03826900bd0d5a47f6ef")
    assert key == key_of(KEY)
    assert hash(key) == hash(key_of(KEY))
    assert key != KEY
    assert key != key_of(KEY.replace(b"p", b"q"))
    assert "abc" not in repr(key)


VALID = st.from_regex(re.compile(FORM.encode()), fullmatch=True)
CHANGED = st.builds(
    lambda key, at, size, byte: key[: at % len(key)] + byte + key[at % len(key) + size :],
    VALID,
    st.integers(0, 99),
    st.integers(0, 1),
    st.binary(max_size=1),
)


@given(VALID | CHANGED | st.binary(max_size=30))
@example(b"")
@example(b'"')
@example(b'""')
@example(b'"0')
@example(b'"00:abcdefghijklmnop"')
@example(b'"9999999999999999999:abcdefghijklmnop"')
@example(b'"99999999999999999999:abcdefghijklmnop"')
@example(b'"1:%b"' % bytes(15 * b"a"))
@example(b'"1:%b"' % (15 * b"a" + b"\xff"))
@example(b'"1:%b"' % bytes(64 * b"a"))
@example(b'"1:%b"' % bytes(65 * b"a"))
def test_a_key_has_the_documented_form(field: bytes) -> None:
    found = re.fullmatch(FORM.encode(), field)
    key = key_of(field)
    assert (key is None) == (found is None)
    if found is not None and key is not None:
        assert key.since == min(int(found[1]), 2**63 - 1)
        assert key.digest == blake2b(field[1:-1], digest_size=16).digest()
        assert key == Key(key.since, field[1:-1])
