"""An idempotency key: ``INDEX:RANDOM``, by which a request identifies one intended step.

INDEX is the index that its client saw last, and RANDOM at least 96 random bits. ``stores.keys`` has
the rule by which the steps of keys are found.

Cython compiles this module unchanged, with the types in ``idempotency_key.pxd``.
"""

from hashlib import blake2b
from string import ascii_letters, digits
from typing import Final

FORM: Final = '"(0|[1-9][0-9]{0,18}):[A-Za-z0-9_-]{16,64}"'
"""The form of ``Idempotency-Key`` as a regular expression: a string per RFC 8941."""

DIGEST_SIZE: Final = 16
"""Bytes of a digest: no two keys share them by chance; a deliberate collision (2^64 tries) only
makes two keys share a step."""

_EMPTY: Final = blake2b(digest_size=DIGEST_SIZE)
"""A copy takes less time to make than another one."""

_QUOTE, _COLON, _ZERO, _NINE = b'":09'

_ALLOWED: Final = f"{ascii_letters}{digits}_-".encode()
_RANDOM: Final = bytes(byte in _ALLOWED for byte in range(256))
"""For each byte, whether it is one of RANDOM."""


class Key:
    """A key.

    Args:
        since: its INDEX.
        text: all of it, which is neither kept nor logged.
    """

    __slots__ = ("_digest", "since", "text")

    def __init__(self, since: int, text: bytes) -> None:
        self.since = since
        self.text = text
        self._digest: bytes | None = None

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Key) and self.text == other.text

    def __hash__(self) -> int:
        return hash(self.text)

    def __repr__(self) -> str:
        return f"Key({self.since}, {self.digest.hex()})"

    @property
    def digest(self) -> bytes:
        """What stores keep of it.

        Computed when first read, so that those of a batch are computed together: that takes half
        the time.
        """
        if self._digest is None:
            digest = _EMPTY.copy()
            digest.update(self.text)
            self._digest = digest.digest()
        return self._digest


def key_of(field: bytes) -> Key | None:
    """Parse the value of ``Idempotency-Key``; None if it does not match ``FORM``.

    See https://datatracker.ietf.org/doc/draft-ietf-httpapi-idempotency-key-header/. Parsed by hand:
    a regular expression takes as long as all else that a new key costs.
    """
    end = len(field) - 1
    if end < 1 or not field[0] == field[end] == _QUOTE:
        return None
    since, at = 0, 1
    while _ZERO <= field[at] <= _NINE:
        since = 10 * since + field[at] - _ZERO
        at += 1
    length, size = at - 1, end - at - 1
    if not 1 <= length <= 19 or (length > 1 and field[1] == _ZERO) or field[at] != _COLON:
        return None
    if not 16 <= size <= 64:
        return None
    for place in range(at + 1, end):
        if not _RANDOM[field[place]]:
            return None
    # No index is larger than 2^63 - 1.
    return Key(min(since, 2**63 - 1), field[1:end])
