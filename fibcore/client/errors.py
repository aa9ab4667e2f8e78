"""The problems that a client raises, all of them ``ClientError``."""

import os

from fibcore.problems import Problem


class ClientError(Problem):
    """A call got no number. Unless a class says otherwise, nothing has stepped."""

    url: str
    """The server that was asked, or the last of several."""
    reason: str
    """What happened there: the ``detail`` of the server's problem (RFC 9457) if it sent one."""

    sentence = "{url}: {reason}"


class NoAnswerError(ClientError):
    """No server answered before the timeout. This call has made no step."""

    status = os.EX_UNAVAILABLE
    sentence = "No server answers at {url} ({reason}). This call has made no step."
    way_out = "Start one, or name another."


class UnavailableError(ClientError):
    """A server answered that it is unavailable, and none was available before the timeout.

    This call has made no step.
    """

    status = os.EX_TEMPFAIL
    way_out = "Try again later."


class StepInDoubtError(ClientError):
    """The step may have been made: its answer was lost, and none arrived before the timeout.

    Or another request with the same key was under way until then.

    ``next(key=error.key)`` asks again: it makes the step if it has not been made, and returns its
    number.
    """

    key: str

    status = os.EX_TEMPFAIL
    sentence = (
        "{url} gave no answer to a step ({reason}). The step may or may not have been made; its "
        "key is {key}."
    )
    way_out = "Ask again with that key, which makes no second step: {fibcore:next --key {key}}."


class KeyForgottenError(ClientError):
    """The server no longer knows whether the step with this key was made.

    It keeps only the keys of the last steps, and this one is older. Whether the step was made can't
    be found out. A call without ``key`` makes another step.
    """

    key: str
    index: int | None
    """Where the sequence is now."""


class KeyAheadError(ClientError):
    """The sequence has not reached the index in the key: it has made no step for it, and will not.

    The key is from another sequence, or this one has lost steps or was set back.
    """

    key: str
    index: int | None
    """Where the sequence is now."""


class LargestIndexError(ClientError):
    """The sequence is at the largest index that the server is configured for."""

    index: int | None
    """Where the sequence is."""


class RejectedError(ClientError):
    """The server rejects the request (4xx): retrying does not help. Nothing has stepped."""

    code: int
    """The status of the answer."""

    sentence = "{url} rejected the request ({code}): {reason}"


class UnexpectedReplyError(ClientError):
    """The reply is not from a fibcore server, or something in between has changed it.

    A step may have been made.
    """

    key: str | None
    """The key of the step; None if no step was requested."""

    status = os.EX_UNAVAILABLE
    sentence = "The reply of {url} is not that of a fibcore server: {reason}."
    way_out = "Check the URL."
