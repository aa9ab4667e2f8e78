"""How each client is driven: its command, and the packages that it needs.

A case is METHOD|PATH|NAME|VALUE|BODY, where NAME and VALUE (a header) and BODY may be empty.
"""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Final

from playwright.sync_api import Page, sync_playwright

PROGRAMS: Final = Path(__file__).parent / "programs"
READS: Final = ("GET|/current|||", "GET|/next|||")
CONDITIONS: Final = ('GET|/next|If-Match|"5"|', 'GET|/current|If-None-Match|"5"|')
CASES: Final = (*READS, "POST|/next|||", "POST|/next|||{}", *CONDITIONS)
SECONDS: Final = 120  # limit for one client to start and send its requests
CHROMIUM: Final = ("--no-sandbox", "--no-proxy-server", "--disable-gpu")


class MissingError(Exception):
    """A client is missing; the message names its packages."""


Drive = Callable[[Path, str, Sequence[str]], None]
"""Makes a client send the cases, once or twice, to a base address; its packages are in a folder.

Raises MissingError or subprocess.SubprocessError.
"""


def run(command: Sequence[str | Path], folder: Path, **environment: str) -> None:
    """Run the command. Raises CalledProcessError or TimeoutExpired."""
    # Without the user's proxy, which clients would use.
    kept = {k: v for k, v in os.environ.items() if not k.lower().endswith("_proxy")}
    subprocess.run(
        [*map(str, command)],
        cwd=folder,
        env={**kept, **environment},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=True,
        timeout=SECONDS,
    )


def found(name: str, packages: str) -> str:
    """The path of a program. Raises MissingError, which names the Debian packages with it."""
    path = shutil.which(name, path=os.environ.get("PATH", "") + ":/usr/sbin")
    if path is None:
        raise MissingError(f"{name} is missing: apt-get install {packages}")
    return path


def _curl(options: tuple[str, ...], folder: Path, base: str, cases: Sequence[str]) -> None:
    curl = found("curl", "curl")
    for case in cases:
        method, path, name, value, body = case.split("|")
        command = [curl, "--silent", "--show-error", "--output", "/dev/null", *options]
        command += ["--request", method] if method != "GET" and not body else []
        command += ["--header", f"{name}: {value}"] if name else []
        command += ["--data", body] if body else []
        run([*command, base + path], folder)


def _wget(folder: Path, base: str, cases: Sequence[str]) -> None:
    wget = found("wget", "wget")
    for case in cases:
        method, path, name, value, body = case.split("|")
        command = [wget, "--quiet", "--output-document", "/dev/null"]
        command += [f"--method={method}", f"--body-data={body}"] if method != "GET" else []
        command += [f"--header={name}: {value}"] if name else []
        run([*command, base + path], folder)


def _ab(options: tuple[str, ...], folder: Path, base: str, cases: Sequence[str]) -> None:
    ab = found("ab", "apache2-utils")
    sent = folder / "ab-body"
    for case in cases:
        method, path, name, value, body = case.split("|")
        sent.write_text(body)
        command = [ab, "-q", "-n", "2", "-c", "1", *options]
        command += ["-p", str(sent), "-T", "application/json"] if method == "POST" else []
        command += ["-H", f"{name}: {value}"] if name else []
        run([*command, base + path], folder)


def _wrk(folder: Path, base: str, cases: Sequence[str]) -> None:
    wrk = found("wrk", "wrk")
    script = folder / "wrk.lua"
    for case in cases:
        method, path, name, value, body = case.split("|")
        script.write_text(f'wrk.method = "{method}"\n' + (f"wrk.body = '{body}'\n" if body else ""))
        command = [wrk, "-t1", "-c1", "-d1s", "-s", str(script)]
        command += ["-H", f"{name}: {value}"] if name else []
        run([*command, base + path], folder)


def _python(library: str, packages: str, folder: Path, base: str, cases: Sequence[str]) -> None:
    if packages:
        _install(
            folder / "python" / packages,
            [sys.executable, "-m", "pip", "install", "--quiet", "--target", "python", packages],
            folder,
        )
    program = PROGRAMS / "python_client.py"
    run([sys.executable, program, library, base, *cases], folder, PYTHONPATH=str(folder / "python"))


def _node(library: str, packages: str, folder: Path, base: str, cases: Sequence[str]) -> None:
    node = found("node", "nodejs")
    if packages:
        _install(
            folder / "node_modules" / packages,
            [found("npm", "npm"), "install", "--silent", "--no-audit", "--no-fund", packages],
            folder,
        )
    run([node, PROGRAMS / "node_client.mjs", library, base, *cases], folder)


def _install(there: Path, command: Sequence[str], folder: Path) -> None:
    """Install a package into the folder, unless it is there."""
    if there.exists():
        return
    try:
        subprocess.run(
            command,
            cwd=folder,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            check=True,
            timeout=300,
        )
    except (subprocess.SubprocessError, OSError) as error:
        raise MissingError(f"{there.name} could not be installed: {error}") from error


def _go(folder: Path, base: str, cases: Sequence[str]) -> None:
    go = found("go", "golang-go")
    environment = {"GO111MODULE": "off", "GOCACHE": str(folder / "go-cache"), "GOFLAGS": ""}
    run([go, "run", PROGRAMS / "client.go", base, *cases], folder, **environment)


def _jdk(folder: Path, base: str, cases: Sequence[str]) -> None:
    java = found("java", "openjdk-17-jdk-headless")
    found("javac", "openjdk-17-jdk-headless")
    run([java, PROGRAMS / "Client.java", base, *cases], folder)


def _locust(kind: str, folder: Path, base: str, cases: Sequence[str]) -> None:
    command = (
        *(sys.executable, "-m", "locust", "-f", PROGRAMS / "locust_client.py", kind),
        *("--headless", "--users", "1", "--host", base),
        *("--only-summary", "--exit-code-on-error", "0"),
    )
    run(command, folder, CASES="\n".join(cases))


@contextmanager
def _chromium() -> Iterator[Page]:
    program = found("chromium", "chromium")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=CHROMIUM)
        with browser.new_page() as page:
            yield page


def _chromium_fetch(_: Path, base: str, cases: Sequence[str]) -> None:
    with _chromium() as page:
        page.goto(f"{base}/health")
        for case in (*cases, *cases):
            method, path, name, value, body = case.split("|")
            options = {"method": method, "headers": {name: value} if name else {}}
            page.evaluate(
                "async ([path, options]) => (await fetch(path, options)).text()",
                [path, options | ({"body": body} if body else {})],
            )


def _chromium_navigation(_: Path, base: str, cases: Sequence[str]) -> None:
    with _chromium() as page:
        for case in (*cases, *cases):
            page.goto(base + case.split("|")[1])


@dataclass(frozen=True, slots=True)
class Client:
    """A client: how it is driven, which cases it supports, and its proxy."""

    drive: Drive
    cases: Sequence[str] = CASES
    shuffles: bool = False  # whether the order of its header fields is random
    proxy: str = ""  # the name of a port in bench.heads.proxies; empty: no proxy
    only: tuple[str, ...] = field(default=("/current", "/next"))  # paths of the requests to keep


NAVIGATION: Final = Client(_chromium_navigation, READS)
REQUESTS: Final = partial(_python, "requests", "")

CLIENTS: Final[Mapping[str, Client]] = {
    "wrk": Client(_wrk, shuffles=True),
    "curl": Client(partial(_curl, ())),
    "curl-http2": Client(partial(_curl, ("--http2",))),
    "curl-http1.0": Client(partial(_curl, ("--http1.0",)), READS),
    "curl-expect": Client(partial(_curl, ("--header", "Expect: 100-continue")), CASES[3:4]),
    "curl-chunked": Client(partial(_curl, ("--header", "Transfer-Encoding: chunked")), CASES[3:4]),
    "wget": Client(_wget),
    "ab": Client(partial(_ab, ())),
    "ab-k": Client(partial(_ab, ("-k",))),
    "requests": Client(REQUESTS),
    "urllib3": Client(partial(_python, "urllib3", "")),
    "httpx": Client(partial(_python, "httpx", "")),
    "httpx-chunked": Client(partial(_python, "httpx-chunked", ""), CASES[3:4]),
    "aiohttp": Client(partial(_python, "aiohttp", "aiohttp")),
    "node-fetch": Client(partial(_node, "fetch", "")),
    "node-http": Client(partial(_node, "http", "")),
    "axios": Client(partial(_node, "axios", "axios")),
    "undici": Client(partial(_node, "undici", "undici")),
    "go": Client(_go),
    "jdk": Client(_jdk),
    "locust-http": Client(partial(_locust, "Http")),
    "locust-fasthttp": Client(partial(_locust, "FastHttp")),
    "chromium": NAVIGATION,
    "chromium-fetch": Client(_chromium_fetch),
    "nginx-default": Client(REQUESTS, proxy="nginx-default"),
    "nginx-requests": Client(REQUESTS, proxy="nginx-usual"),
    "nginx-chromium": Client(_chromium_fetch, proxy="nginx-usual"),
    "nginx-traced": Client(REQUESTS, proxy="nginx-traced"),
    "haproxy-requests": Client(REQUESTS, proxy="haproxy-usual"),
    "haproxy-chromium": Client(_chromium_fetch, proxy="haproxy-usual"),
}
