"""`openapi.json` is the truth: every operation of a real relay answers as it says, and takes what it says."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import urlencode, urlsplit

import aiohttp
import pytest
from jsonschema import Draft202012Validator, FormatChecker
from openapi_spec_validator import OpenAPIV31SpecValidator

import relay
from relay import web
from relay.web.backend import Backend
from relay.web.paths import OPENAPI, is_page
from relay.web.server import WebServer
from tests.cli.test_imports import loaded_by
from tests.web.api_session import Exchange, recorded

FILE = Path(web.__file__).parent / "openapi.json"
DESCRIBED: Any = json.loads(FILE.read_text())
OPERATIONS: Mapping[str, tuple[str, str, Any]] = {
    one["operationId"]: (method.upper(), path, one)
    for path, methods in DESCRIBED["paths"].items()
    for method, one in methods.items()
}
"""by name: method, path, and the description"""
RARE = {"408", "500", "503"}
"""statuses of trouble, which the session sees only as far as it is easily made"""
VALUES: Mapping[str, str] = {
    "id": "01",
    "since": "1h",
    "until": "2026-01-31T12:00:00Z",
    "after": "1.5_1",
    **dict.fromkeys(("q", "to", "from", "subject", "message_id", "lane", "address"), "ann@users.example.net"),
}
"""of parameters that take any text"""
KNOWN = re.compile(r"known (?:is|are) ([\w, -]+)")
"""what a refusal says of parameters"""


def closed(schema: Any) -> Any:
    """The same, where no object has other keys than those that are described."""
    if isinstance(schema, list):
        return [closed(one) for one in schema]
    if not isinstance(schema, dict):
        return schema
    found = {name: closed(value) for name, value in schema.items()}
    return (
        {"additionalProperties": False, **found} if "properties" in found and found.get("type") == "object" else found
    )


COMPONENTS = closed(DESCRIBED["components"])


def errors(schema: Any, document: object) -> list[str]:
    """Where the document isn't as it is described."""
    checked = Draft202012Validator({**schema, "components": COMPONENTS}, format_checker=FormatChecker())
    return [f"{one.json_path}: {one.message}" for one in checked.iter_errors(document)]


def resolved(described: Any) -> Any:
    """Follow a reference."""
    if "$ref" not in described:
        return described
    kind, name = described["$ref"].split("/")[-2:]
    return DESCRIBED["components"][kind][name]


def parameters(name: str) -> Mapping[str, Any]:
    """Those of an operation's query, with their schemas."""
    described = OPERATIONS[name][2].get("parameters", ())
    return {one["name"]: resolved(one["schema"]) for one in described if one["in"] == "query"}


READING = [name for name, (method, _, _) in OPERATIONS.items() if method == "GET" and parameters(name)]
"""operations that read, and have parameters"""


def good(name: str) -> Iterator[str]:
    """Paths with each parameter, and each of its values where those are listed."""
    _, path, _ = OPERATIONS[name]
    for parameter, schema in parameters(name).items():
        bounds = [str(schema[one]) for one in ("minimum", "maximum") if one in schema]
        for value in schema.get("enum") or bounds or [VALUES[parameter]]:
            yield f"{path}?{urlencode({parameter: value})}"


def bad(name: str) -> Iterator[str]:
    """Paths with a parameter that isn't described, and with values that aren't."""
    _, path, _ = OPERATIONS[name]
    yield f"{path}?colour=red"
    for parameter, schema in parameters(name).items():
        over = [str(schema["maximum"] + 1)] if "maximum" in schema else []
        long = ["x" * (schema["maxLength"] + 1)] if "maxLength" in schema else []
        for value in (*over, *long, *(["nonsense"] if "enum" in schema else [])):
            yield f"{path}?{urlencode({parameter: value})}"


@pytest.fixture(scope="module")
def session(tmp_path_factory: pytest.TempPathFactory) -> list[Exchange]:
    guarded = [(method, re.sub(r"{\w+}", "drop", path)) for method, path, one in OPERATIONS.values() if one["security"]]
    queries = [path for name in READING for path in (*good(name), *bad(name))]
    return recorded(tmp_path_factory.mktemp("api"), guarded, queries)


def of(session: list[Exchange], name: str) -> list[Exchange]:
    """The exchanges of an operation."""
    method, path, _ = OPERATIONS[name]
    pattern = re.compile(re.sub(r"{\w+}", "[^/]+", path))
    return [one for one in session if one.method == method and pattern.fullmatch(urlsplit(one.path).path)]


def documents(session: list[Exchange], name: str) -> list[Any]:
    return [one.document for one in of(session, name) if one.status == 200]


def server_sent(body: bytes) -> Iterator[tuple[str, Any]]:
    for block in body.decode().split("\n\n"):
        fields = dict(line.split(": ", 1) for line in block.splitlines())
        if "event" in fields:
            yield fields["event"], json.loads(fields["data"])


def test_the_description_is_openapi_of_this_version() -> None:
    OpenAPIV31SpecValidator(DESCRIBED).validate()
    assert DESCRIBED["info"]["version"] == relay.__version__
    assert len(OPERATIONS) == sum(map(len, DESCRIBED["paths"].values()))


def test_it_has_exactly_the_servers_routes(backend: Backend) -> None:
    anything: Any = object()
    server = WebServer(replace(backend, suppressions=anything, eraser=anything, sender=anything))
    router = server._listener._runner.app.router
    routes = {(one.method, one.resource.canonical) for one in router.routes() if one.resource is not None}
    # aiohttp answers HEAD wherever it answers GET.
    routes -= {("HEAD", path) for method, path in routes if method == "GET"}
    described = {(method, path) for method, path, _ in OPERATIONS.values()}
    assert described == {(method, path) for method, path in routes if not is_page(path)}


@pytest.mark.parametrize(
    ("document", "place"),
    [
        ({"id": "01A"}, None),
        ({"id": "01A", "colour": "red"}, "$"),
        ({}, "$"),
        ({"id": 1}, "$.id"),
    ],
)
def test_a_check_finds_what_is_not_as_described(document: object, place: str | None) -> None:
    found = errors({"$ref": "#/components/schemas/Sent"}, document)
    assert [one.partition(":")[0] for one in found] == ([] if place is None else [place])
    assert errors({"type": "string", "format": "date-time"}, "yesterday")


async def test_the_relay_serves_the_file(client: aiohttp.ClientSession, url: str) -> None:
    async with client.get(url + OPENAPI) as answer:
        assert (answer.status, answer.content_type) == (200, "application/json")
        assert await answer.read() == FILE.read_bytes()


def test_the_relay_loads_none_of_the_types() -> None:
    loaded = loaded_by("import relay.web.server")
    assert "relay.web.operation" in loaded
    assert not {name for name in loaded if name.startswith("relay.web.documents")}


@pytest.mark.parametrize("name", OPERATIONS)
def test_an_operation_answers_as_it_is_described(session: list[Exchange], name: str) -> None:
    responses = {status: resolved(one) for status, one in OPERATIONS[name][2]["responses"].items()}
    found = of(session, name)
    for one in found:
        assert str(one.status) in responses, one
        content = responses[str(one.status)].get("content", {})
        media = one.headers.get("content-type", "").partition(";")[0]
        assert media in content or not one.body, one
        if media == "application/json" and one.body:
            assert errors(content[media]["schema"], one.document) == [], one
        if media == "text/event-stream":
            for kind, document in server_sent(one.body):
                assert errors(content[media]["x-events"][kind], document) == []
    assert {str(one.status) for one in found} >= responses.keys() - RARE


def test_a_described_header_field_of_a_response_was_seen(session: list[Exchange]) -> None:
    """The search of a small log never ends early."""
    seen: set[str] = set()
    for name, (_, _, described) in OPERATIONS.items():
        for one in of(session, name):
            headers = resolved(described["responses"][str(one.status)]).get("headers", {})
            seen.update(header for header in headers if header.lower() in one.headers)
    components = {name for one in DESCRIBED["components"]["responses"].values() for name in one.get("headers", {})}
    assert seen == {"Link", *components}


def test_the_session_saw_mail_of_many_kinds(session: list[Exchange]) -> None:
    recipients = [one for each in documents(session, "getMessage") for one in each["recipients"]]
    assert {one["state"] for one in recipients} >= {"sent", "bounced", "deferred", "held", "sending"}
    assert all(any(key in one for one in recipients) for key in ("part", "next_at"))
    events = [event for one in recipients for event in one["events"]]
    assert {one["kind"] for one in events} >= {"accepted", "sent", "deferred", "bounced", "held", "delivered"}
    assert {one["source"] for one in events} == {"relay", "esp"}
    report = documents(session, "getReport")[0]
    assert {one["lane"]: one["objective"] is None for one in report["lanes"]} == {"bulk": True, "otp": False}
    assert any(one["reported"] for one in report["lines"])
    assert any(documents(session, "listLimitHits"))
    lanes = [lane for one in documents(session, "getLive") for lane in one["lanes"].values()]
    upstreams = [one for lane in lanes for one in lane["upstreams"].values()]
    assert {key for one in upstreams for key in one} >= {"warm", "window", "reason", "words", "p95"}
    assert {kind for kind, _ in server_sent(of(session, "streamEvents")[0].body)} == {"mail", "live"}


@pytest.mark.parametrize("name", ["actOnQueue", "suppress", "erase", "send"])
def test_a_body_is_taken_if_it_is_as_described_and_else_refused(session: list[Exchange], name: str) -> None:
    schema = OPERATIONS[name][2]["requestBody"]["content"]["application/json"]["schema"]
    sent = [one for one in of(session, name) if one.sent is not None]
    taken = [one for one in sent if one.status in (200, 202)]
    assert taken
    assert not [one for one in taken if errors(schema, one.sent)]
    others = [one for one in sent if errors(schema, one.sent) and one.status not in (401, 403)]
    assert {one.status for one in others} == {422 if name == "send" else 400}


@pytest.mark.parametrize("name", READING)
def test_every_described_parameter_is_taken_and_no_other(session: list[Exchange], name: str) -> None:
    statuses = {one.path: one.status for one in of(session, name)}
    assert {path: statuses[path] for path in good(name)} == dict.fromkeys(good(name), 200)
    assert {path: statuses[path] for path in bad(name)} == dict.fromkeys(bad(name), 400)


@pytest.mark.parametrize("name", [name for name in OPERATIONS if parameters(name)])
def test_the_described_parameters_are_those_that_a_refusal_names(session: list[Exchange], name: str) -> None:
    texts = [json.dumps(one.document) for one in of(session, name) if "colour=red" in one.path and one.status >= 400]
    named = [found[1].split(", ") for text in texts if (found := KNOWN.search(text)) is not None]
    assert named
    assert all(sorted(one) == sorted(parameters(name)) for one in named)


@pytest.mark.parametrize(
    ("name", "tokens"),
    [
        ("getReadiness", set()),
        ("postEvents", set()),
        ("listMessages", {"token", "read_token"}),
        ("getMetrics", {"token", "read_token"}),
        ("actOnQueue", {"token"}),
        ("unsuppress", {"token"}),
        ("send", {"token", "send_token"}),
    ],
)
def test_it_says_which_token_may_do_what(name: str, tokens: set[str]) -> None:
    schemes = [(scheme, token) for one in OPERATIONS[name][2]["security"] for scheme, (token,) in one.items()]
    assert set(schemes) == {(scheme, token) for scheme in ("bearer", "basic") for token in tokens}
