"""Answers as data: their common headers, and their rendering."""

import json
from http import HTTPStatus

import pytest

from web.http import answers
from web.http.answers import Answer, Form, Number, NumberAnswer, ServerHeaders
from web.http.negotiation import Representation

CURRENT = Number(b"current", answers.NO_CACHE)

EVERY_KIND = {
    "number": NumberAnswer(CURRENT.json, 7, b"13"),
    "text": NumberAnswer(CURRENT.text, 7, b"13"),
    "not modified": CURRENT.json.not_modified(7),
    "bad request": answers.bad_request("it is none"),
    "not found": answers.not_found("/x", ["/current"]),
    "failed": answers.failed(steps=True),
    "failed at a read": answers.failed(steps=False),
    "problem": answers.problem(412, "Not now.", index=7),
    "unavailable": answers.unavailable("Not now."),
    "method not allowed": answers.method_not_allowed("PUT", "/next", ("GET", "POST")),
    "ok": answers.ok(b"application/json", b"{}"),
    "misdirected": answers.misdirected(),
}

every_kind = pytest.mark.parametrize("answer", EVERY_KIND.values(), ids=EVERY_KIND)


@every_kind
def test_content_length_is_the_length_of_the_body(answer: Answer) -> None:
    length = dict(answer.headers()).get(b"content-length")
    if answer.status == 304:
        assert length is None
        assert answer.body() == ()
    else:
        assert length == b"%d" % sum(map(len, answer.body()))


@every_kind
def test_header_names_are_unique_and_in_lower_case(answer: Answer) -> None:
    names = [name for name, _ in answer.headers()]
    assert len(set(names)) == len(names)
    assert all(name == name.lower() for name in names)


@every_kind
def test_every_answer_has_cache_control(answer: Answer) -> None:
    assert dict(answer.headers())[b"cache-control"] in (b"no-cache", b"no-store")


@pytest.mark.parametrize("form", [CURRENT.json, CURRENT.text])
def test_long_digits_are_not_copied(form: Form) -> None:
    digits = b"8" * 10_000
    answer = NumberAnswer(form, 7, digits)
    assert any(piece is digits for piece in answer.body())
    assert any(piece is digits for piece in answer.render(ServerHeaders()))


@every_kind
def test_an_answer_has_its_own_and_the_servers_headers(answer: Answer) -> None:
    lines = ServerHeaders([(b"date", b"100%d"), (b"server", b"x")])
    head, _, body = b"".join(answer.render(lines)).partition(b"\r\n\r\n")
    assert body == b"".join(answer.body())
    fields = [(b"date", b"100%d"), (b"server", b"x"), *answer.headers()]
    assert head.split(b"\r\n")[1:] == [b"%b: %b" % field for field in fields]
    assert head.startswith(b"HTTP/1.1 %d " % answer.status)
    assert answer.render(lines) is answer.render(lines)
    assert answer.render_anew(lines, body=True)[0] == head + b"\r\n\r\n"


def test_each_representation_has_its_own_strong_etag() -> None:
    forms = [
        CURRENT.form(100, representation, wraps)
        for representation in Representation
        for wraps in (False, True)
    ]
    tags = [dict(NumberAnswer(form, 100, b"1").headers())[b"etag"] for form in forms]
    assert tags == [b'"100"', b'"100-uint64"', b'"100-text"', b'"100-uint64-text"']
    assert tags == [f'"{form.tag(100)}"'.encode() for form in forms]
    assert CURRENT.form(93, Representation.JSON, True) is CURRENT.json


def test_a_problem_conforms_to_rfc_9457() -> None:
    answer = answers.problem(412, "Not now.", (b"x", b"y"), index=7)
    headers = dict(answer.headers())
    assert answer.status == 412
    assert headers[b"content-type"] == b"application/problem+json"
    assert headers[b"etag"] == b'"7"'
    assert headers[b"x"] == b"y"
    assert json.loads(b"".join(answer.body())) == {
        "type": "about:blank",
        "title": HTTPStatus(412).phrase,
        "status": 412,
        "detail": "Not now.",
        "index": 7,
    }


def test_an_unavailable_answer_has_retry_after() -> None:
    answer = answers.unavailable("The disk is full.")
    assert answer.status == 503
    assert dict(answer.headers())[b"retry-after"] == b"1"
    assert "This request has not stepped." in json.loads(answer.body()[0])["detail"]
