"""The URL of a store: which are accepted, and that no message contains a secret."""

import contextlib
import io
import re
from urllib.parse import quote

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from fibcore.command.cli import main
from fibcore.problems import Problem, StoreUnavailableError, explain
from tests.support.stores import Place

SCHEMES = ("postgresql", "postgres", "redis", "redis+sentinel", "etcd")


@pytest.mark.parametrize(
    ("url", "visible"),
    [
        ("postgresql://u:secret@h,i:5433/db?sslpassword=secret", "postgresql://h,i:5433/db"),
        ("postgresql://h/db?password=secret", "postgresql://h/db"),
        ("postgresql:///db?host=/run/postgresql&password=a/b?c", "postgresql:///db"),
        ("redis://:secret@h:6379/1", "redis://h:6379/1"),
        ("redis://u:sec%2Fret@[::1]:2/0", "redis://[::1]:2/0"),
        ("redis+sentinel://u:p%40@one,[::1]:2/main/3", "redis+sentinel://one,[::1]:2/main/3"),
        ("etcd://u:p%40@one,two:1,[::1]:2/a/b", "etcd://one,two:1,[::1]:2/a/b"),
    ],
)
def test_a_valid_url_is_shown_as_scheme_hosts_and_path(url: str, visible: str) -> None:
    assert Place(url).opener().where == visible


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("redis://:sec/ret@h/0", "where its password ends is ambiguous"),
        ("redis://:sec/0", "an invalid host or port"),
        ("redis://:12?ret@h/0", "not of the form NAME=VALUE"),
        ("redis://:12#ret@h/0", "a fragment"),
        ("redis://u:sec@ret@h/0", "where its password ends is ambiguous"),
        ("redis://u:se cret@h/0", "a character that must be percent-encoded"),
        ("redis://u:secret%zz@h/0", "a % without two digits"),
        ("redis://h:65536/0", "a port that is not from 1 to 65535"),
        ("postgresql://h/db?host=i", "names its host twice"),
        ("etcd://", "it names no host"),
        ("etcd://h,", "it names no host"),
        ("etcd://h?user=x", "its options may be .*; it has user"),
        ("etcds://h?cacert=/none", "its certificates can't be read"),
        ("redis+sentinel://h", "the name by which the Sentinels know the primary"),
        ("redis+sentinel://u:secret@h,/main", "it names no host"),
        ("redis://u:secret@h?foo=1", "its options may be .*; it has foo"),
        ("redis://u:secret@h?ssl_ca_certs=FILE", "which only rediss:// uses"),
    ],
)
def test_an_invalid_url_is_rejected_with_the_reason(url: str, reason: str) -> None:
    with pytest.raises(Problem, match=reason) as invalid:
        Place(url).opener()
    assert not re.search("secret|12|ret@", str(invalid.value))


REFUSED = "127.0.0.1:1"
"""A port on which nothing listens."""

SECRETS = st.text("QXZJK789/?#@:&=% []\\'\"<>^`{|}+\u00e9\n", min_size=4, max_size=16)


def pieces(secret: str) -> list[str]:
    """Recognizable parts of a secret: its runs of letters and digits."""
    return [run for run in re.findall("[QXZJK789]+", secret) if len(run) > 2]


@st.composite
def urls(draw: st.DrawFn) -> tuple[str, list[str]]:
    """A URL with a secret, and the parts of it that must not be shown."""
    scheme, secret = draw(st.sampled_from(SCHEMES)), draw(SECRETS)
    written = draw(st.sampled_from([secret, quote(secret, safe="")]))
    path = {"redis+sentinel": "/name/0", "redis": "/0"}.get(scheme, "/name")
    forms = ["u:{it}@{host}{path}", ":{it}@{host}{path}", "{host}{path}?password={it}"]
    # etcd rejects a password there.
    form = draw(st.sampled_from(forms[:2] if scheme == "etcd" else forms))
    return f"{scheme}://{form.format(it=written, host=REFUSED, path=path)}", pieces(secret)


@given(urls())
@example(("redis://host:1/0?password=abc@ZZZ9", ["ZZZ9"]))
def test_no_message_of_a_store_has_any_part_of_a_secret(given: tuple[str, list[str]]) -> None:
    url, secrets = given
    try:
        opener = Place(url).opener()
    except Problem as error:
        told = [str(error), explain(error)]
    else:
        told = [opener.where]
        if "//host" not in url:
            with pytest.raises(StoreUnavailableError) as refused:
                opener.open()
            told += [str(refused.value), explain(refused.value)]
    assert not [secret for secret in secrets for each in told if secret in each]


@given(urls())
@example(("redis://u:777 @127.0.0.1:1/0", ["777"]))
def test_no_command_prints_any_part_of_a_secret(given: tuple[str, list[str]]) -> None:
    url, secrets = given
    for arguments in (["copy", url, "redis://127.0.0.1:1"], ["show", url], ["copy", url, url, url]):
        with (
            pytest.MonkeyPatch.context() as patched,
            contextlib.redirect_stdout(io.StringIO()) as out,
            contextlib.redirect_stderr(io.StringIO()) as err,
            contextlib.suppress(SystemExit),
        ):
            patched.setenv("FIB_STORE", "redis://127.0.0.1:1")
            assert main(arguments) != 0
        assert not [secret for secret in secrets if secret in out.getvalue() + err.getvalue()]
