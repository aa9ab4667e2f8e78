"""The files of the page, and their headers that keep foreign scripts and frames out."""

from pathlib import Path
from typing import Final

import pytest

from tests.endpoints.page.viewer import PATIENCE, Viewer
from tests.support.implementations import assert_problem, serving
from tests.support.openapi import Document
from tests.support.servers import Client

pytestmark = pytest.mark.processes

FILES: Final = (
    "page.css",
    "page.js",
    "asking.js",
    "charts.js",
    "elements.js",
    "format.js",
    "seen.js",
    "icon.svg",
)


def test_each_file_has_security_headers_and_is_revalidated(tmp_path: Path) -> None:
    with serving(tmp_path, 7) as client:
        for path in ("/", *(f"/page/{name}" for name in FILES)):
            answer = client.get(path)
            assert answer.status == 200
            assert answer.headers["cache-control"] == "no-cache"
            assert answer.headers["x-content-type-options"] == "nosniff"
            assert answer.headers["content-security-policy"].startswith("default-src 'none'; ")
            tag = answer.headers["etag"]
            again = client.get(path, {"If-None-Match": f'"x", {tag}'})
            assert (again.status, again.body, again.headers["etag"]) == (304, b"", tag)
            assert client.get(path, {"If-None-Match": '"x"'}).status == 200
            head = client.request("HEAD", path)
            assert (head.status, head.headers["content-length"]) == (200, str(len(answer.body)))
        answer = client.request("POST", "/")
        assert_problem(answer, 405, "/ does not support POST")
        assert answer.headers["allow"] == "GET, HEAD"
        assert_problem(client.get("/page/"), 404, "The paths are /, /current")
        assert client.index == 7


def test_the_page_links_to_each_path_for_programs(viewer: Viewer, still: Client) -> None:
    viewer.opens(still)
    links = viewer.page.get_by_role("navigation", name="For programs").get_by_role("link")
    found = {link.evaluate("link => new URL(link.href).pathname") for link in links.all()}
    assert found == {path for path in Document(still).paths if "{" not in path} - {"/next"}
    for path in found:
        assert still.get(path).status == 200


def test_the_page_requests_only_its_own_files_and_logs_no_error(
    viewer: Viewer, client: Client
) -> None:
    viewer.opens(client)
    viewer.sees("#state", "Healthy")
    viewer.clicks("Next number")
    viewer.sees("#index", "24,999")
    with viewer.page.expect_request("**/status"):
        pass
    assert all(url.startswith(f"http://127.0.0.1:{client.port}/") for url in viewer.asked)
    assert viewer.said == []
    # The control: both are noticed.
    viewer.page.evaluate("console.error('wrong'); fetch('http://127.0.0.1:9/').catch(() => 0)")
    assert viewer.said[0] == "wrong"
    assert any("Content Security Policy" in each for each in viewer.said)


def test_no_foreign_script_runs_and_no_foreign_page_frames_it(
    viewer: Viewer, still: Client
) -> None:
    viewer.opens(still)
    viewer.page.evaluate(
        "const script = document.createElement('script');"
        "script.append('window.ran = true'); document.body.append(script)"
    )
    assert viewer.page.evaluate("window.ran") is None
    viewer.page.goto("about:blank")
    viewer.page.set_content(f"<iframe src='http://127.0.0.1:{still.port}/'></iframe>")
    frame = viewer.page.frames[1]
    frame.wait_for_url("chrome-error://chromewebdata/", timeout=PATIENCE)
