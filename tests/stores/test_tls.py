"""Engines over TLS: a server without a trusted certificate is unavailable."""

from pathlib import Path

import pytest

from fibcore.problems import StoreUnavailableError
from tests.support.engines import Engine, Etcd, Redis
from tests.support.stores import Place

pytestmark = pytest.mark.processes


def certify(engine: Engine) -> tuple[Path, Path]:
    """Create a key and a self-signed certificate; return both."""
    key, certificate = engine.folder / "key", engine.folder / "certificate"
    name = ("-subj", "/CN=engine", "-addext", "subjectAltName=IP:127.0.0.1")
    files = ("-keyout", key, "-out", certificate)
    engine.run("openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", *name, *files)
    return key, certificate


class TlsRedis(Redis):
    programs = (*Redis.programs, "openssl")

    def __init__(self) -> None:
        super().__init__()
        key, self.certificate = certify(self)
        self.settings = {
            "port": "0",
            "tls-port": str(self.port),
            "tls-auth-clients": "no",
            "tls-cert-file": str(self.certificate),
            "tls-key-file": str(key),
        }

    def cli(self, *command: str) -> str:
        return super().cli("--tls", "--cacert", str(self.certificate), *command)


class TlsEtcd(Etcd):
    programs = (*Etcd.programs, "openssl")

    def __init__(self) -> None:
        super().__init__()
        key, self.certificate = certify(self)
        here = f"https://127.0.0.1:{self.port}"
        self.settings = {
            "listen_client_urls": here,
            "advertise_client_urls": here,
            "cert_file": str(self.certificate),
            "key_file": str(key),
        }

    def is_ready(self) -> bool:
        at = ("--cacert", self.certificate, "--endpoints", f"https://127.0.0.1:{self.port}")
        return self.run("etcdctl", *at, "endpoint", "health", check=False).returncode == 0


@pytest.mark.parametrize(("kind", "option"), [(TlsRedis, "ssl_ca_certs"), (TlsEtcd, "cacert")])
def test_over_tls_only_a_trusted_certificate_is_accepted(
    kind: type[TlsRedis | TlsEtcd], option: str
) -> None:
    with kind() as engine:
        url = engine.url.replace("://", "s://")
        with Place(f"{url}?{option}={engine.certificate}").created(5) as store:
            assert store.advance(1) == 6
            for _ in range(5):
                assert store.read() == 6
            assert store.where == url
        with pytest.raises(StoreUnavailableError, match="self-signed certificate"):
            Place(url).opener().create(0)
