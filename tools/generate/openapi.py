"""relay/web/openapi.json: the HTTP API in OpenAPI 3.1, from the route table, the handlers' signatures and docstrings.

A handler says the rest by its `operation`. Which token may do what is asked of the guard itself.
"""

from __future__ import annotations

import asyncio
import inspect
import json
import pkgutil
import re
from collections.abc import Iterator, Mapping, Sequence
from http import HTTPStatus
from importlib import import_module
from types import SimpleNamespace
from typing import Annotated, Any, Literal, NamedTuple, get_args, get_origin, get_type_hints

from relay import __version__
from relay.web import documents
from relay.web.api import Api
from relay.web.guard import CHANGING_METHODS, SEND, Guard, Tokens
from relay.web.operation import Body, Headers, Operation, Query, ServerSent, operation_of
from relay.web.responses import Json
from relay.web.send import Send
from tools.generate.typed_dicts import Schema, Schemas

ABOUT = (
    "The HTTP service of otp-relay, for operators, apps and the webhooks of ESPs. Times are RFC 3339 in UTC, durations"
    " are in milliseconds. Fields may be added to a response. What reads parameters or a body refuses those that aren't"
    " described here. Without `http.token` no token is asked for: then root and the relay's own user may do everything,"
    " by loopback or a unix socket."
)
TAGS = {
    "mail": "Messages, what happened to them, and reports.",
    "queue": "What waits, and actions on it.",
    "suppressions": "Addresses that must not be mailed.",
    "sending": "Mail by HTTP; also at `http.send_address`.",
    "webhooks": "Delivery events of ESPs, which prove themselves; also at `webhooks.address`.",
    "relay": "State of lanes and upstreams, and the configuration.",
    "health": "Probes and metrics.",
}
TOKENS = Tokens(full="token", send="send_token", read="read_token")
"""Each is called as its key of `http`."""
SCHEMES = {
    "bearer": {"type": "http", "scheme": "bearer", "description": "`http.token`, `read_token` or `send_token`."},
    "basic": {"type": "http", "scheme": "basic", "description": "A token as the password; the user name is ignored."},
}
ERRORS: Mapping[int, str] = {
    400: "A parameter or a body that makes no sense.",
    401: "The token is missing or wrong; without `http.token`: another user of this machine.",
    403: "The token may not do this, or the request looks like one of another site.",
    404: "There is no such thing.",
    408: "The body came too slowly.",
    409: "The idempotency key was used for another message; with Retry-After: it is in use.",
    413: "The body is too large.",
    415: "Another Content-Type, or a compressed body.",
    422: "The message can't be sent: what SMTP would answer 5yz.",
    429: "A limit of the lane. Retry-After says when it passes.",
    500: "An error of the relay; its log says more.",
    503: "It can't be done now.",
}
OF_SEND = {503: "What SMTP would answer 4yz: try again after Retry-After."}
OF_SEND_ONLY = (409, 422, 429)
NOT_OF_SEND = (404, 500)
"""500 is 503 there"""
OF_BODY = (400, 408, 413, 415)
"""errors of what reads JSON"""
RETRY_AFTER = {"description": "seconds to wait", "schema": {"type": "integer", "minimum": 0}}
MAY_RETRY = (409, 429, 503)
"""errors of `/api/send` that may have Retry-After"""


class Handler(NamedTuple):
    """What is known of one, by its signature and its operation."""

    method: str
    path: str
    operation: Operation
    summary: str
    reads: Sequence[object]
    answers: Any
    """its return type"""

    def read(self, kind: type) -> Any:
        """What it reads of that kind; None: nothing."""
        return next((one for one in self.reads if isinstance(one, kind)), None)


def text() -> str:
    return json.dumps(document(), indent=1, ensure_ascii=False) + "\n"


def document() -> Schema:
    """The whole description."""
    schemas = Schemas(_literals())
    shared = dict(errors(schemas))
    paths: dict[str, Schema] = {}
    for handler in handlers():
        paths.setdefault(handler.path, {})[handler.method.lower()] = _operation(handler, schemas)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "otp-relay",
            "version": __version__,
            "description": ABOUT,
            "license": {"name": "MIT", "identifier": "MIT"},
        },
        "tags": [{"name": name, "description": description} for name, description in TAGS.items()],
        "paths": paths,
        "components": {
            "schemas": dict(sorted(schemas.components.items())),
            "responses": shared,
            "securitySchemes": SCHEMES,
        },
    }


def handlers() -> Iterator[Handler]:
    """Of all routes but pages and files. Raises ValueError where one doesn't describe itself."""
    # No handler is called: what is behind them matters only as far as a relay has all of it.
    backend: Any = SimpleNamespace(clock=None, events=None, suppressions=True, eraser=True, webhooks=None)
    for route in [*Api(backend).routes(), *Send(backend).routes()]:
        operation = operation_of(route.handler)
        if operation is None:
            raise ValueError(f"{route.method} {route.path} has no @operation")
        hints = get_type_hints(route.handler, localns={"documents": documents}, include_extras=True)
        request = next((hint for name, hint in hints.items() if name != "return"), None)
        reads = get_args(request)[1:] if get_origin(request) is Annotated else ()
        summary = " ".join((inspect.getdoc(route.handler) or "").split())
        yield Handler(route.method, route.path, operation, summary, reads, hints["return"])


def errors(schemas: Schemas) -> Iterator[tuple[str, Schema]]:
    """The shared responses, by name: each error in the API's form, and in that of `/api/send`."""
    in_api = {"application/json": {"schema": schemas.of(documents.Error)}}
    in_send = {"application/json": {"schema": schemas.of(documents.SendError)}}
    for status, told in ERRORS.items():
        if status not in OF_SEND_ONLY:
            yield f"Error{status}", {"description": told, "content": in_api}
        if status not in NOT_OF_SEND:
            headers = {"headers": {"Retry-After": RETRY_AFTER}} if status in MAY_RETRY else {}
            yield f"SendError{status}", {"description": OF_SEND.get(status, told), **headers, "content": in_send}


def _literals() -> Mapping[object, str]:
    """The names of Literals that have one: of all that the documents' modules import."""
    found: dict[object, str] = {}
    for module in pkgutil.iter_modules(documents.__path__):
        names = vars(import_module(f"{documents.__name__}.{module.name}"))
        found |= {value: name for name, value in names.items() if get_origin(value) is Literal}
    return found


def _operation(handler: Handler, schemas: Schemas) -> Schema:
    begin, _, rest = handler.summary.partition(". ")
    body = handler.read(Body)
    parameters = [
        *_in_path(handler.path, schemas),
        *_parameters(handler.read(Query), "query", schemas),
        *_parameters(handler.read(Headers), "header", schemas),
    ]
    return {
        "operationId": handler.operation.name,
        "tags": [handler.operation.tag],
        "summary": begin.rstrip("."),
        **({"description": rest} if rest else {}),
        **({"parameters": parameters} if parameters else {}),
        **({"requestBody": _body(body, schemas)} if body is not None else {}),
        "responses": _responses(handler, schemas),
        "security": asyncio.run(_security(handler.method, handler.path)),
    }


def _in_path(path: str, schemas: Schemas) -> Iterator[Schema]:
    known = {name: schema for name, schema, _ in schemas.fields(documents.InPath)}
    for name in re.findall(r"{(\w+)}", path):
        yield _parameter(name, "path", known[name], is_required=True)


def _parameters(read: Query | Headers | None, place: str, schemas: Schemas) -> Iterator[Schema]:
    if read is not None:
        for name, schema, is_required in schemas.fields(read[0]):
            yield _parameter(name, place, schema, is_required=is_required)


def _parameter(name: str, place: str, schema: Schema, *, is_required: bool) -> Schema:
    described = dict(schema)
    description = described.pop("description", None)
    return {
        "name": name,
        "in": place,
        **({"description": description} if description is not None else {}),
        **({"required": True} if is_required else {}),
        "schema": described,
    }


def _body(body: Body, schemas: Schemas) -> Schema:
    of_json = {} if body.document is None else {"application/json": {"schema": schemas.of(body.document, closed=True)}}
    return {"required": True, "content": {**of_json, **{media: {} for media in body.media}}}


def _responses(handler: Handler, schemas: Schemas) -> Schema:
    operation = handler.operation
    found: dict[int, Schema] = {}
    for status in operation.statuses:
        headers = {
            name: {"description": told, "schema": {"type": "string"}} for name, told in operation.headers.items()
        }
        content = _content(handler, schemas)
        found[status] = {
            "description": HTTPStatus(status).phrase,
            **({"headers": headers} if headers else {}),
            **({"content": content} if content else {}),
        }
    for status in _errors(handler):
        name = f"SendError{status}" if handler.path == SEND else f"Error{status}"
        found[status] = {"$ref": f"#/components/responses/{name}"}
        if handler.method == "HEAD":
            found[status] = {"description": ERRORS[status]}
    return {str(status): found[status] for status in sorted(found)}


def _errors(handler: Handler) -> set[int]:
    """The statuses of errors, without those that have a document of the handler's own."""
    found = {503, *handler.operation.errors}
    if handler.path != SEND:
        found.add(500)  # there it is 503
    if handler.read(Query) is not None:
        found.add(400)
    if handler.read(Body) is not None:
        found.update(OF_BODY)
    if asyncio.run(_security(handler.method, handler.path)):
        found.update((401, 403))
    if handler.method in CHANGING_METHODS:
        found.add(415)
    return found - set(handler.operation.statuses)


def _content(handler: Handler, schemas: Schemas) -> Schema:
    """Of a response that is no error."""
    answers, media = handler.answers, handler.operation.media
    for one in get_args(answers) if get_origin(answers) is not Json else (answers,):
        if get_origin(one) is Json:
            return {"application/json": {"schema": schemas.of(get_args(one)[0])}}
        if isinstance(one, ServerSent):
            events = {name: schemas.of(kind) for name, kind in one.events.items()}
            return {name: {"schema": {"type": "string"}, "x-events": events} for name in media}
    return {name: {"schema": {"type": "string"}} for name in media}


class _Stranger:
    """Another user of the machine."""

    unix = False

    async def is_operator(self) -> bool:
        return False


async def _security(method: str, path: str) -> list[Schema]:
    """A requirement for each token that may do this; none: it needs no token."""
    guard, headers = Guard(TOKENS), {"Content-Type": "application/json"}
    if await guard.denies(method, path, headers, _Stranger()) is None:
        return []
    able = [
        token
        for token in TOKENS
        if await guard.denies(method, path, {**headers, "Authorization": f"Bearer {token}"}, _Stranger()) is None
    ]
    return [{scheme: [token]} for token in able for scheme in SCHEMES]
