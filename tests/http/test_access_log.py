"""The access log: off by default, otherwise a line for each request, which no client can forge."""

from pathlib import Path

import pytest

from tests.http.corpus import READ, STEP, request
from tests.support.limits import limited, read_answer

pytestmark = pytest.mark.processes


def test_each_request_leaves_a_line_in_the_order_of_its_connection(tmp_path: Path) -> None:
    with limited(tmp_path, ACCESS_LOG="on") as served:
        client = served.connect((READ + STEP) * 50 + request("GET /nowhere?a") + request("GET /"))
        for _ in range(102):
            read_answer(client)
        peer = f"127.0.0.1:{client.getsockname()[1]}"
        line = rf'{peer} - "GET (/[^ ]*) HTTP/1.1" (\d+)'
        found = [served.process.log.expect(line).groups() for _ in range(102)]
    assert found[:100] == [("/current", "200"), ("/next", "200")] * 50
    assert found[100:] == [("/nowhere?a", "404"), ("/", "200")]


def test_a_client_cannot_forge_a_line(tmp_path: Path) -> None:
    with limited(tmp_path, ACCESS_LOG="on") as served:
        forged = '"GET /forged HTTP/1.1" 200'
        for data in (
            request(f"GET /a%0A{forged.replace(' ', '%20')}"),
            request("GET /next", f"User-Agent: {forged}"),
            request("GET /next", f"X-Forwarded-For: {forged}"),
            request("GET /next", f"Idempotency-Key: {forged}"),
        ):
            read_answer(served.connect(data))
        served.connect(request("GET /last"))
        served.process.log.expect("GET /last")
        text = served.process.log.text
    assert f" - {forged}" not in text


def test_without_the_setting_there_is_no_line(tmp_path: Path) -> None:
    with limited(tmp_path) as served:
        assert served.client.get("/next").status == 200
    assert "GET" not in served.process.log.text
