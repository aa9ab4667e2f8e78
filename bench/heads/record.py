"""Records the requests of real clients: python -m bench.heads.record [CLIENT...]

Each installed client sends requests to a server on the loopback address, which records the bytes in
data/<client>.http. pip and npm install aiohttp, axios and undici into a temporary folder. A missing
client is reported with its packages, and its file is left alone. Ports and the request IDs of
proxies are masked, so that the same clients produce the same files again.
"""

import argparse
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path

from bench.heads import DATA, parse, proxies
from bench.heads.drivers import CLIENTS, Client, MissingError
from bench.heads.recorder import Recorder


def record(name: str, client: Client, recorder: Recorder, base: str, folder: Path) -> bytes:
    """The requests of the client. Raises MissingError, SubprocessError, OSError or ValueError."""
    recorder.take()
    client.drive(folder, base, client.cases)
    requests = (request for raw in recorder.take() for request in parse(name, raw))
    asked = [request for request in requests if request.path in client.only]
    if client.shuffles:
        asked = list(dict.fromkeys(request.sorted() for request in asked))
    kept = b"".join(request.raw for request in asked)
    if not kept:
        raise ValueError(f"{name} sent no request")
    return kept


def main() -> int:
    """Record; exit with 1 if a requested client could not be recorded."""
    parser = argparse.ArgumentParser(prog="python -m bench.heads.record", description=__doc__)
    parser.add_argument("client", nargs="*", help=f"one of {', '.join(CLIENTS)}; by default all")
    wanted = parser.parse_args().client or list(CLIENTS)
    if unknown := set(wanted) - set(CLIENTS):
        parser.error(f"unknown clients: {', '.join(sorted(unknown))}")
    failed = 0
    recorder = Recorder()
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="fibcore-heads-")))
        bases = {"": recorder.base}
        for proxy in (proxies.nginx, proxies.haproxy):
            try:
                ports: Mapping[str, int] = stack.enter_context(proxy(folder, recorder.port))
            except MissingError as error:
                print(error, file=sys.stderr)
                continue
            recorder.mask(*ports.values())
            bases |= {way: f"http://127.0.0.1:{port}" for way, port in ports.items()}
        for name in wanted:
            client = CLIENTS[name]
            path = DATA / f"{name}.http"
            try:
                if client.proxy not in bases:
                    raise MissingError(f"{client.proxy.partition('-')[0]} is missing")
                data = record(name, client, recorder, bases[client.proxy], folder)
            except (MissingError, subprocess.SubprocessError, OSError, ValueError) as error:
                output = getattr(error, "stderr", None) or ""
                print(f"{name}: not recorded: {error}\n{output[-2000:]}".rstrip(), file=sys.stderr)
                failed += 1
                continue
            before = path.read_bytes() if path.exists() else b""
            path.write_bytes(data)
            count = sum(1 for _ in parse(name, data))
            print(f"{name}: {count} requests, {'unchanged' if data == before else 'written'}")
    recorder.close()
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
