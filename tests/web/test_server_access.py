"""Who may do what: every route, every method, with and without a session; other sites' pages; passwords."""

from __future__ import annotations

import re
import socket
from importlib.util import find_spec
from pathlib import Path
from unittest.mock import MagicMock

import pytest
from config_text import camera, configuration
from daemon import DaemonProcess
from pageclient import OPERATOR, VIEWER, PageClient, raw_exchange, web_table
from ports import free_port
from waiting import until

from msrecd.vocabulary.listen import parse_listen
from msrecd.web.mirror import StateMirror
from msrecd.web.router import Access, Route
from msrecd.web.webserver import Site
from msrecd.web.websettings import WebSettings

METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE")
VALUES = {"recorder": "cam0", "verb": "start", "recording_id": "20260101T000000Z-cam0-0000"}


def all_routes() -> tuple[Route, ...]:
    """Those of the server itself, whatever modules add to it."""
    settings = WebSettings(listen=parse_listen("127.0.0.1:1"), device_id="pi", version="0")
    return Site(settings, MagicMock(), StateMirror(), MagicMock(), dict).router.routes


def address_of(route: Route, number: str = "1") -> str:
    return re.sub(r"\{(\w+)\}", lambda match: VALUES.get(match[1], number), route.pattern)


def is_public(route: Route) -> bool:
    return route.access is Access.PUBLIC


def test_the_public_routes_are_few_and_known() -> None:
    known = {route.pattern for route in all_routes() if is_public(route)}
    pages = {pattern for pattern in known if re.fullmatch(r"/[a-z0-9_.-]*", pattern)}
    assert known - pages == {"/api/login"}
    assert {route.method for route in all_routes() if is_public(route) and route.pattern != "/api/login"} == {"GET"}


def test_what_a_viewer_may_changes_nothing() -> None:
    changing = {route.pattern for route in all_routes() if route.method != "GET" and route.access < Access.OPERATOR}
    assert changing <= {
        "/api/login",
        "/api/logout",
        "/api/recorders/{recorder}/whep",
        "/api/recorders/{recorder}/whep/{session}",
    }


@pytest.mark.promise("page-session")
def test_without_a_session_every_route_is_closed(page_daemon: tuple[DaemonProcess, int]) -> None:
    client = PageClient(page_daemon[1])
    routes = all_routes()
    assert len(routes) >= 15
    for cookie in ("", "msrecd_session=" + "A" * 43, "msrecd_session="):
        client.cookie = cookie
        for route in routes:
            methods = {"GET", "HEAD"} if is_public(route) and route.method == "GET" else {route.method}
            for method in METHODS:
                if is_public(route) and method in methods:
                    continue
                for address in (address_of(route), address_of(route, "x%00"), address_of(route, "..")):
                    answer = client.request(method, address)
                    assert answer.status in (400, 401, 403, 405), (method, address, answer.status, answer.body[:200])
                    if address == address_of(route) and not is_public(route):
                        assert answer.status in (401, 403), (method, address, answer.status)


@pytest.mark.promise("page-viewer")
def test_a_viewer_looks_and_nothing_else(viewer: PageClient, operator: PageClient) -> None:
    for route in all_routes():
        if route.access is Access.OPERATOR:
            answer = viewer.request(route.method, address_of(route))
            assert answer.status == 403, (route, answer.status)
    for verb in ("start", "stop", "pause", "resume", "split", "snapshot", "get", "protect", "set", "nonsense"):
        assert viewer.post(f"/api/recorders/cam0/{verb}", {}).status == 403
    assert viewer.get("/api/session").json["role"] == "viewer"
    assert operator.get("/api/recorders").json["cam0"]["state"] == "inactive"
    assert viewer.get("/api/recorders").json["cam0"]["recording_id"] is None


def test_an_unknown_address(operator: PageClient, page_daemon: tuple[DaemonProcess, int]) -> None:
    assert operator.get("/api/nothing").status == 404
    assert PageClient(page_daemon[1]).get("/api/nothing").status == 401
    answer = operator.request("DELETE", "/api/recorders")
    assert (answer.status, answer.headers["allow"]) == (405, "GET")


@pytest.mark.promise("page-origin", "api-origin")
@pytest.mark.promise("page-host")
def test_other_sites_pages_are_refused(operator: PageClient, page_daemon: tuple[DaemonProcess, int]) -> None:
    port = page_daemon[1]
    verb = "/api/recorders/cam0/stop"
    foreign = (
        {"Origin": "http://evil.example"},
        {"Origin": "null"},
        {"Origin": f"https://127.0.0.1:{port}"},
        {"Origin": f"http://127.0.0.1:{port + 1}"},
        {"Origin": f"http://127.0.0.1:{port}.evil.example"},
        {"Host": "evil.example", "Origin": "http://evil.example"},
        {"Host": f"rebound.example:{port}", "Origin": f"http://rebound.example:{port}"},
    )
    for headers in foreign:
        answer = operator.post(verb, {}, headers)
        assert answer.status == 403, (headers, answer.status)
        assert operator.request("GET", "/api/recorders", headers=headers).status == 403, headers
    without = operator.connect()
    without.request("POST", verb, b"{}", {"Cookie": operator.cookie, "Content-Type": "application/json"})
    assert without.getresponse().status == 403  # a form of an old browser, perhaps
    without.close()
    for kind in ("text/plain", "application/x-www-form-urlencoded", "multipart/form-data", ""):
        assert operator.post(verb, {}, {"Content-Type": kind}).status == 415
    assert operator.request("GET", "/api/recorders", headers={"Sec-Fetch-Site": "cross-site"}).status == 403
    for host in ("localhost", f"LOCALHOST:{port}", "[::1]", "10.0.0.7:99", socket.gethostname()):
        assert operator.request("GET", "/api/recorders", headers={"Host": host}).status == 200, host
    for host in ("", "localhost.evil.example", "127.0.0.1.evil.example", "localhost@evil.example", "[::1", "a b"):
        assert operator.request("GET", "/", headers={"Host": host}).status in (400, 403), host


@pytest.mark.promise("host-is-checked")
@pytest.mark.promise("page-host")
def test_the_host_header_is_needed_and_stands_once(page_daemon: tuple[DaemonProcess, int]) -> None:
    port = page_daemon[1]
    for lines in (b"", b"Host: localhost\r\nHost: localhost\r\n"):
        answer = raw_exchange(port, b"GET / HTTP/1.1\r\n" + lines + b"Connection: close\r\n\r\n")
        assert answer.split()[1] in (b"400", b"403"), answer


@pytest.mark.promise("page-no-links")
def test_nothing_is_made_of_a_path(operator: PageClient) -> None:
    for path in (
        "/../../etc/passwd",
        "/..%2f..%2fetc%2fpasswd",
        "/%2e%2e/%2e%2e/etc/passwd",
        "//etc/passwd",
        "/static/../webserver.py",
        "/webserver.py",
        "/index.html%00",
        "/api/recordings/../../../etc/passwd/1",
        "/api/recordings/..%2f..%2fetc/1",
        "/api/recordings/%2Fetc%2Fpasswd/index.m3u8",
        "/api/recorders/..%2f..%2f/live.mp4",
        "/api/recorders/..%5c..%5c/live.jpg",
        "/api/recorders/cam0%2fx/live.jpg",
        "/api/timeline/..%2fcam0.m3u8",
        "/" + "a" * 3000,
    ):
        answer = operator.get(path)
        assert answer.status in (400, 404, 414), (path, answer.status)
        assert b"root:" not in answer.body


@pytest.mark.promise("page-login", "api-login")
def test_a_session_begins_and_ends(page_daemon: tuple[DaemonProcess, int]) -> None:
    daemon, port = page_daemon
    client = PageClient(port, source="127.0.0.8")
    assert client.log_in("wrong").status == 401
    for body in ({}, {"password": 7}, {"password": "x" * 300}, []):
        assert client.post("/api/login", body).status == 400
    answer = client.log_in()
    cookie = answer.headers["set-cookie"]
    assert {"HttpOnly", "SameSite=Strict", "Path=/"} <= {part.strip() for part in cookie.split(";")}
    assert client.get("/api/session").json["role"] == "operator"
    with client.stream("/api/events") as events:
        assert next(client.events(events))[0] in ("state", "health")
        assert client.post("/api/logout").status == 204
        until(lambda: not events.readline(), "a stream goes on after its session has ended")
    assert client.get("/api/session").status == 401
    assert OPERATOR not in daemon.log.read_text()
    assert client.cookie.partition("=")[2] not in daemon.log.read_text()


@pytest.mark.promise("page-login-rate")
def test_passwords_cannot_be_tried_without_end(page_daemon: tuple[DaemonProcess, int], operator: PageClient) -> None:
    client = PageClient(page_daemon[1], source="127.0.0.9")
    assert [client.log_in(f"wrong {number}").status for number in range(5)] == [401] * 5
    refused = client.log_in()
    assert (refused.status, refused.code) == (429, "rate_limited")
    assert int(refused.headers["retry-after"]) > 0
    assert operator.get("/api/session").status == 200, "sessions continue"
    assert PageClient(page_daemon[1], source="127.0.0.10").log_in(VIEWER).status == 204, "others may log in"


def test_every_answer_has_the_headers_that_protect_the_page(operator: PageClient) -> None:
    for path in ("/", "/api/recorders", "/api/nothing"):
        headers = operator.get(path).headers
        assert "frame-ancestors 'none'" in headers["content-security-policy"]
        assert "unsafe" not in headers["content-security-policy"]
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["referrer-policy"] == "no-referrer"
        assert "server" not in headers
        assert not [name for name in headers if name.startswith("access-control")]
    assert operator.get("/api/recorders").headers["cache-control"] == "no-store"


def test_the_page_itself_is_kept_by_the_browser(operator: PageClient) -> None:
    first = operator.get("/")
    again = operator.request("GET", "/", headers={"If-None-Match": first.headers["etag"]})
    assert (again.status, again.body) == (304, b"")


@pytest.mark.promise("page-no-login", "page-cause", "api-session")
def test_without_passwords_whoever_reaches_the_address_is_the_operator(tmp_path: Path) -> None:
    port = free_port()
    table = web_table(port, tmp_path, with_passwords=False)
    with DaemonProcess(tmp_path, configuration(tmp_path, port=None, recorders=table + camera())) as daemon:
        client = PageClient(port)
        until(lambda: daemon.is_running and _answers(client), "no page")
        assert client.get("/api/session").json | {"now": ""} == {
            "device": "test-device",
            "version": client.get("/api/daemon").json["version"],
            "login": False,
            "role": "operator",
            "webrtc": find_spec("aiortc") is not None,
            "now": "",
        }
        reply = client.post("/api/recorders/cam0/start", {"id": "7", "args": {"duration_s": 60}})
        assert (reply.status, reply.json["id"], reply.json["changed"]) == (200, "7", True)
        state = client.get("/api/recorders").json["cam0"]
        assert (state["state"], state["cause"]) == ("recording", "web")
        assert client.post("/api/recorders/cam0/stop", {}, {"Origin": "http://evil.example"}).status == 403
        assert client.get("/api/recorders").json["cam0"]["state"] == "recording"


def _answers(client: PageClient) -> bool:
    try:
        return client.get("/").status == 200
    except OSError:
        return False
