from __future__ import annotations

import asyncio
import base64
import re
from dataclasses import dataclass
from html.parser import HTMLParser
from pathlib import Path

import aiohttp
import pytest
from hypothesis import given
from hypothesis import strategies as st
from yarl import URL

from relay import web
from relay.web.backend import Backend
from relay.web.guard import SEND, Guard, Tokens, presents
from tests.web.conftest import TOKEN, serve

STATIC = Path(web.__file__).parent / "static"


class Operator:
    """A peer over TCP."""

    unix = False

    async def is_operator(self) -> bool:
        return True


def basic(user: str, password: str) -> str:
    return "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()


PATHS = [
    "/",
    "/static/console.js",
    "/m/01A",
    "/metrics",
    "/api/messages",
    "/api/messages/01A",
    "/api/report",
    "/api/queue",
    "/api/live",
    "/api/openapi.json",
    "/x",
]


@pytest.mark.parametrize("path", PATHS)
async def test_with_a_token_nothing_is_shown_without_it(
    client: aiohttp.ClientSession, guarded_url: str, path: str
) -> None:
    async with client.get(guarded_url + path) as answer:
        assert answer.status == 401
        assert answer.headers["WWW-Authenticate"].startswith("Basic ")
        assert await answer.json() == {"error": "a token is required"}


@pytest.mark.parametrize("path", ["/api/queue/drop", "/api/queue/webhooks", "/x"])
async def test_with_a_token_nothing_is_changed_without_it(
    client: aiohttp.ClientSession, guarded_url: str, path: str
) -> None:
    async with client.post(guarded_url + path, json={"all": True}) as answer:
        assert answer.status == 401


@pytest.mark.parametrize("path", ["/healthz", "/readyz"])
async def test_probes_need_no_token_and_no_host_of_ours(
    client: aiohttp.ClientSession, guarded_url: str, url: str, path: str
) -> None:
    for base in (guarded_url, url):
        async with client.get(base + path, headers={"Host": "pod-7.example"}) as answer:
            assert answer.status == 200


@pytest.mark.parametrize(
    ("authorization", "status"),
    [
        (f"Bearer {TOKEN}", 200),
        (f"bearer  {TOKEN}", 200),
        (basic("", TOKEN), 200),
        (basic("prometheus", TOKEN), 200),
        (f"Bearer {TOKEN}x", 401),
        (f"Bearer {TOKEN[:-1]}", 401),
        ("Bearer ", 401),
        ("Bearer", 401),
        (TOKEN, 401),
        (basic(TOKEN, ""), 401),
        (basic("x", "wrong"), 401),
        ("Basic !!!", 401),
        ("Basic " + base64.b64encode(b"\xff\xfe:x").decode(), 401),
        (f"Digest {TOKEN}", 401),
    ],
)
async def test_the_token_comes_as_bearer_or_as_a_basic_password(
    client: aiohttp.ClientSession, guarded_url: str, authorization: str, status: int
) -> None:
    async with client.get(f"{guarded_url}/metrics", headers={"Authorization": authorization}) as answer:
        assert answer.status == status


@given(st.text())
def test_no_other_text_is_the_token(text: str) -> None:
    if text.split(" ", 1)[-1].strip() != TOKEN:
        assert not presents(text, TOKEN)


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("127.0.0.1:8025", 200),
        ("localhost", 200),
        ("LOCALHOST:1", 200),
        ("relay.localhost", 200),
        ("[::1]:8025", 200),
        ("relay.example.com:8025", 200),
        ("evil.example", 403),
        ("127.0.0.1.evil.example", 403),
        ("localhost.evil.example", 403),
        ("relay.example.com.evil.example", 403),
        ("[", 403),
    ],
)
async def test_without_a_token_a_rebound_name_is_refused(
    client: aiohttp.ClientSession, backend: Backend, host: str, status: int
) -> None:
    server, base = await serve(backend, hosts=frozenset({"relay.example.com"}))
    async with client.get(f"{base}/api/messages", headers={"Host": host}) as answer:
        assert answer.status == status
    await server.stop()


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 200),
        ({"Content-Type": "application/json; charset=utf-8"}, 200),
        ({"Sec-Fetch-Site": "same-origin"}, 200),
        ({"Content-Type": "text/plain"}, 415),
        ({"Content-Type": "application/x-www-form-urlencoded"}, 415),
        ({"Content-Type": ""}, 415),
        ({"Origin": "http://evil.example"}, 403),
        ({"Origin": "null"}, 403),
        ({"Sec-Fetch-Site": "cross-site"}, 403),
        ({"Sec-Fetch-Site": "same-site"}, 403),
    ],
)
async def test_another_sites_page_can_not_act_even_with_the_browsers_password(
    client: aiohttp.ClientSession, guarded_url: str, headers: dict[str, str], status: int
) -> None:
    sent = {"Content-Type": "application/json", "Authorization": basic("", TOKEN), **headers}
    async with client.post(f"{guarded_url}/api/queue/hold", data=b'{"all": true}', headers=sent) as answer:
        assert answer.status == status


async def test_our_own_page_may_act(client: aiohttp.ClientSession, url: str) -> None:
    async with client.post(f"{url}/api/queue/hold", json={"all": True}, headers={"Origin": url}) as answer:
        assert answer.status == 200


@pytest.mark.parametrize("broken", ["[", "[::1", "http://[", "]:80"])
async def test_a_broken_host_or_origin_is_refused_not_an_error(broken: str) -> None:
    guard = Guard(Tokens())
    assert await guard.denies("GET", "/", {"Host": broken}, Operator()) == "host"
    headers = {"Host": "localhost", "Content-Type": "application/json", "Origin": broken}
    assert await guard.denies("POST", "/api/queue/drop", headers, Operator()) == "origin"


@pytest.mark.parametrize(
    "path", ["/", "/queue", "/static/base.css", "/static/console.js", "/healthz", "/api/messages", "/nowhere"]
)
async def test_every_response_has_the_security_headers(client: aiohttp.ClientSession, url: str, path: str) -> None:
    async with client.get(url + path) as answer:
        policy = answer.headers["Content-Security-Policy"]
        assert policy.startswith("default-src 'none'")
        assert "unsafe" not in policy
        assert answer.headers["X-Content-Type-Options"] == "nosniff"
        assert answer.headers["Cache-Control"] == "no-store"
        assert answer.headers.getall("Server") == ["otp-relay"]


class _Links(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.links: list[str] = []
        self.inline: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        self.links += [str(given[name]) for name in ("src", "href") if name in given]
        self.inline += [name for name in given if name.startswith("on") or name == "style"]
        if tag == "style" or (tag == "script" and "src" not in given):
            self.inline.append(tag)


async def test_the_console_loads_only_its_own_files(client: aiohttp.ClientSession, url: str) -> None:
    async with client.get(f"{url}/") as answer:
        assert answer.content_type == "text/html"
        page = _Links()
        page.feed(await answer.text())
    assert page.inline == []
    shipped = {str(path.relative_to(STATIC)) for path in STATIC.rglob("*.*") if path.suffix in (".css", ".js")}
    local = [link for link in page.links if link.startswith("/static/")]
    assert sorted(local) == sorted(f"/static/{name}" for name in shipped)
    assert {link for link in page.links if link not in local} == {"/favicon.ico", "#main", "/"}
    for link in local:
        async with client.get(url + link) as answer:
            assert answer.status == 200
            text = await answer.text()
        assert not re.search("innerHTML|outerHTML|insertAdjacentHTML|document.write|eval", text)
        assert "http" not in text.replace("http://www.w3.org/2000/svg", "")


async def test_a_request_that_is_not_http_is_400_and_the_server_continues(
    client: aiohttp.ClientSession, url: str, caplog: pytest.LogCaptureFixture
) -> None:
    host, _, port = url.removeprefix("http://").partition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(b"\x16\x03\x01 nonsense\r\n\r\n")
    answer = await asyncio.wait_for(reader.read(), 10)
    writer.close()
    assert answer.startswith((b"HTTP/1.0 400", b"HTTP/1.1 400"))
    assert "Traceback" not in caplog.text
    async with client.get(f"{url}/healthz") as alive:
        assert alive.status == 200


@dataclass(frozen=True)
class Someone:
    unix: bool
    operator: bool

    async def is_operator(self) -> bool:
        return self.operator


SENDS, ALL, WRONG = "only-to-send", "everything", "wrong"


@pytest.mark.parametrize("unix", [False, True])
@pytest.mark.parametrize("operator", [False, True])
@pytest.mark.parametrize("only_sends", [False, True])
@pytest.mark.parametrize("presented", [None, SENDS, ALL, WRONG])
@pytest.mark.parametrize(("token", "send_token"), [(None, None), (None, SENDS), (ALL, None), (ALL, SENDS)])
async def test_who_may_send(
    unix: bool, operator: bool, only_sends: bool, presented: str | None, token: str | None, send_token: str | None
) -> None:
    guard = Guard(Tokens(token, send_token), only_sends=only_sends)
    headers = {"Content-Type": "message/rfc822", "Host": "localhost"}
    if presented is not None:
        headers["Authorization"] = f"Bearer {presented}"
    denial = await guard.denies("POST", SEND, headers, Someone(unix, operator))
    if presented is not None and presented in (token, send_token):
        assert denial is None
    elif unix and only_sends:
        assert denial == (None if send_token is None else "token")
    elif token is None and operator:
        assert denial is None
    else:
        assert denial == ("operator" if token is None and send_token is None else "token")
    # The token for sending opens nothing else, whoever presents it.
    if presented == SENDS == send_token:
        for method, path in (("GET", "/metrics"), ("GET", SEND), ("POST", "/api/erase"), ("GET", "/api/messages")):
            assert await guard.denies(method, path, headers, Someone(unix, operator)) == "token"


@pytest.mark.parametrize("only_sends", [False, True])
async def test_a_page_of_another_site_cant_send(only_sends: bool) -> None:
    guard, operator = Guard(Tokens(), only_sends=only_sends), Someone(unix=False, operator=True)
    headers = {"Content-Type": "application/json; charset=utf-8", "Host": "127.0.0.1:8025"}
    assert await guard.denies("POST", SEND, headers, operator) is None
    for changed, denial in [
        ({"Host": "evil.example"}, "host"),
        ({"Origin": "https://evil.example"}, "origin"),
        ({"Sec-Fetch-Site": "same-site"}, "origin"),
        ({"Content-Type": "text/plain"}, "content type"),
        ({"Content-Type": "multipart/form-data"}, "content type"),
        ({"Content-Type": ""}, "content type"),
    ]:
        assert await guard.denies("POST", SEND, {**headers, **changed}, operator) == denial
    # Elsewhere a whole message isn't a body.
    headers["Content-Type"] = "message/rfc822"
    assert await guard.denies("POST", "/api/queue/drop", headers, operator) == "content type"


@pytest.mark.parametrize("path", ["/m/01A", "/queue", "/configuration"])
async def test_each_view_has_the_same_page(client: aiohttp.ClientSession, url: str, path: str) -> None:
    async with client.get(url + "/") as first, client.get(url + path) as answer:
        assert answer.status == 200
        assert await answer.text() == await first.text()


@pytest.mark.parametrize("name", ["nothing.js", "..%2Fpages.py", "views%2F..%2F..%2Fpages.py", "/etc/passwd", "views"])
async def test_only_the_consoles_files_are_served(client: aiohttp.ClientSession, url: str, name: str) -> None:
    async with client.get(URL(f"{url}/static/{name}", encoded=True)) as answer:
        assert answer.status == 404
