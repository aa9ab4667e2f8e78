"""The nginx of docs/operations.md: TLS, authentication, and steps that are made once."""

import asyncio
import re
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final, NamedTuple

import httpx
import pytest

from fibcore import AsyncClient, Client
from fibcore.client import NoAnswerError, Number
from tests.http.test_deadlines import IDLE_SECONDS
from tests.support import requires
from tests.support.documents import block
from tests.support.fake_server import FakeServer, answer, lose, shed
from tests.support.implementations import serving
from tests.support.ports import free_port
from tests.support.reference import fibonacci
from tests.support.supervised import ROOT
from tests.support.waiting import PATIENCE, until

pytestmark = pytest.mark.processes

NAME: Final = "fib.example.com"
AROUND: Final = """
daemon off; master_process off; pid {folder}/pid; error_log {folder}/error.log;
events {{}}
http {{
    access_log off;
    client_body_temp_path {folder}; proxy_temp_path {folder}; fastcgi_temp_path {folder};
    uwsgi_temp_path {folder}; scgi_temp_path {folder};
    {documented}
}}
"""
AGAIN: Final = "proxy_next_upstream off;"
"""The line without which nginx retries a step."""


class Proxy(NamedTuple):
    """A running nginx."""

    port: int
    certificate: Path

    def ask(self, path: str, *options: str, name: str = NAME) -> str:
        """The body, the status and the tag that curl gets for user ann."""
        return subprocess.run(
            [
                *(requires.program("curl"), "--silent", "--show-error", "--user", "ann:secret"),
                *("--cacert", self.certificate, "--resolve", f"{name}:{self.port}:127.0.0.1"),
                *("--write-out", " %{http_code} %header{etag}", *options),
                f"https://{name}:{self.port}/{path}",
            ],
            stdout=subprocess.PIPE,
            text=True,
            timeout=PATIENCE,
            check=True,
        ).stdout


@contextmanager
def nginx(folder: Path, port: int, *, without: str = "") -> Iterator[Proxy]:
    """nginx as documented, in front of the appliance at ``port``."""
    certificate, key, users = (folder / name for name in ("cert.pem", "key.pem", "users"))
    names = f"subjectAltName=DNS:{NAME},IP:127.0.0.1"
    openssl(
        *("req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"),
        *("-subj", f"/CN={NAME}", "-addext", names, "-keyout", key, "-out", certificate),
    )
    users.write_text(f"ann:{openssl('passwd', '-apr1', 'secret')}")
    proxy = Proxy(free_port(), certificate)
    documented = block(ROOT / "docs" / "operations.md", "nginx")
    assert without in documented
    for there, here in (
        (without, ""),
        ("127.0.0.1:8080", f"127.0.0.1:{port}"),
        ("listen 443 ssl", f"listen 127.0.0.1:{proxy.port} ssl"),
        (f"/etc/letsencrypt/live/{NAME}/fullchain.pem", str(certificate)),
        (f"/etc/letsencrypt/live/{NAME}/privkey.pem", str(key)),
        ("/etc/nginx/fibcore.users", str(users)),
    ):
        documented = documented.replace(there, here) if there else documented
    with running(folder, proxy.port, documented):
        yield proxy


@contextmanager
def running(folder: Path, port: int, documented: str) -> Iterator[None]:
    """nginx with this configuration, listening on ``port``."""
    config = folder / "nginx.conf"
    config.write_text(AROUND.format(folder=folder, documented=documented))
    program, errors = requires.program("nginx"), folder / "error.log"
    with subprocess.Popen([program, "-p", folder, "-c", config, "-e", errors]) as run:
        try:
            until(lambda: listens(port) or run.poll() is not None, "nginx listens")
            assert run.poll() is None, errors.read_text()
            yield
        finally:
            run.terminate()


def openssl(*arguments: object) -> str:
    command = [requires.program("openssl"), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def test_nginx_authenticates_and_forwards_conditions_and_tags(tmp_path: Path) -> None:
    """It forwards the host, too."""
    with (
        serving(tmp_path, 0, FIB_ALLOWED_HOSTS=NAME) as client,
        nginx(tmp_path, client.port) as proxy,
    ):
        assert proxy.ask("next") == '{"next": 1} 200 "1"'
        assert proxy.ask("next", "-H", 'If-Match: "1"') == '{"next": 1} 200 "2"'
        assert proxy.ask("next", "-H", 'If-Match: "1"').endswith(' 412 "2"')
        assert proxy.ask("current", "-H", "Accept: text/plain").startswith("1 200 ")
        assert proxy.ask("current", "-H", 'If-None-Match: "2"') == ' 304 "2"'
        assert "421" in proxy.ask("next", "--insecure", name="elsewhere.example.com")
        assert "401" in proxy.ask("next", "--user", "ann:guess")
        assert client.index == 2


def test_a_client_that_retries_through_nginx_makes_each_step_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with FakeServer() as server, nginx(tmp_path, server.server_port) as proxy:
        monkeypatch.setenv("SSL_CERT_FILE", str(proxy.certificate))
        url = f"https://ann:secret@127.0.0.1:{proxy.port}"

        async def read() -> Number:
            async with AsyncClient(url) as client:
                return await client.current()

        with Client(url) as client:
            client.current()
            server.will(answer, lose, answer, lose, lose, answer)
            numbers = [client.next() for _ in range(4)]
        assert asyncio.run(read()) == numbers[-1]
        assert numbers == [Number(index, str(fibonacci(index))) for index in range(1, 5)]
        assert (server.index, len(server.keys), len(set(server.keys))) == (4, 7, 4)
        # The control: by default the certificate is not trusted.
        monkeypatch.delenv("SSL_CERT_FILE")
        with Client(url, timeout=1.0) as client, pytest.raises(NoAnswerError):
            client.current()


@pytest.mark.parametrize(
    ("without", "index"), [("", 2), (AGAIN, 3)], ids=["as documented", "without that line"]
)
def test_nginx_sends_a_step_once(tmp_path: Path, without: str, index: int) -> None:
    """Without one line of its configuration a lost answer would mean a second step."""
    with FakeServer() as server, nginx(tmp_path, server.server_port, without=without) as proxy:
        assert proxy.ask("next").startswith("1 200 ")
        server.will(lose)
        assert (" 502 " in proxy.ask("next")) == (index == 2)
        assert server.index == index


@pytest.mark.parametrize("document", ["docs/operations.md", "deploy/shared-store/nginx.conf"])
def test_nginx_closes_an_idle_connection_before_the_server_does(document: str) -> None:
    """Otherwise it would send a step on a connection that is being closed, and answer 502."""
    (seconds,) = re.findall(
        r"(?m)^ +keepalive_timeout (\d+)s;$", ROOT.joinpath(document).read_text()
    )
    assert int(seconds) < IDLE_SECONDS


@pytest.mark.parametrize(
    ("without", "statuses"),
    [("", {200}), (" non_idempotent", {200, 503})],
    ids=["as documented", "without that word"],
)
def test_nginx_retries_a_shed_step_at_another_node(
    tmp_path: Path, without: str, statuses: set[int]
) -> None:
    """A POST, too; but it sends one whose answer is lost only once."""
    documented = ROOT.joinpath("deploy/shared-store/nginx.conf").read_text()
    assert without in documented
    port = free_port()
    with FakeServer() as one, FakeServer() as other:
        for there, here in (
            (without, ""),
            ("127.0.0.1:8080", f"127.0.0.1:{port}"),
            ("127.0.0.1:8081", f"127.0.0.1:{one.server_port}"),
            ("127.0.0.1:8082", f"127.0.0.1:{other.server_port}"),
        ):
            documented = documented.replace(there, here) if there else documented
        with running(tmp_path, port, documented):
            one.will(*[shed] * 20)
            found = [httpx.post(f"http://127.0.0.1:{port}/next").status_code for _ in range(8)]
            assert set(found) == statuses
            assert (one.index, other.index) == (0, found.count(200))
            one.heal()
            for each in (one, other):
                each.will(lose)
            before = one.index + other.index
            assert httpx.post(f"http://127.0.0.1:{port}/next").status_code == 502
            assert one.index + other.index == before + 1
