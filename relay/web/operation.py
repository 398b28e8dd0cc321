"""What a handler says of itself for `openapi.json`, besides its path, its types and its docstring.

Its summary and description are its docstring. The type of its response is in its signature, as `Json[Live]`; so is
what it reads of the request: `Annotated[web.Request, Query(MessageFilters), Body(QueueAction)]`. Nothing here is read
while the relay runs: `python -m tools.generate` makes the file.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Literal, NamedTuple, TypeVar

Tag = Literal["mail", "queue", "suppressions", "sending", "webhooks", "relay", "health"]
F = TypeVar("F", bound=Callable[..., object])
_ATTRIBUTE = "openapi_operation"


class Operation(NamedTuple):
    """One method of one path."""

    name: str
    """among all operations: generated clients call theirs so"""
    tag: Tag
    statuses: tuple[int, ...]
    """with the document that the handler's signature names"""
    errors: tuple[int, ...]
    """beyond those that follow from what it reads, and from the guard"""
    headers: Mapping[str, str]
    """of its response, each with a sentence on it"""
    media: tuple[str, ...]
    """of its response, where that is no JSON"""


class Query(NamedTuple):
    """The handler reads these parameters, and refuses all others with 400."""

    parameters: type
    """a TypedDict"""


class Headers(NamedTuple):
    """The handler reads these header fields."""

    fields: type
    """a TypedDict"""


class Body(NamedTuple):
    """The handler reads a body."""

    document: object
    """type of the JSON; None: no JSON of a form that the relay knows"""
    media: tuple[str, ...] = ()
    """further types that it takes, as they are"""


class ServerSent(NamedTuple):
    """The response has events of these names, each with a document of that type."""

    events: Mapping[str, object]


def operation(
    name: str,
    tag: Tag,
    *,
    statuses: tuple[int, ...] = (200,),
    errors: tuple[int, ...] = (),
    headers: Mapping[str, str] | None = None,
    media: tuple[str, ...] = (),
) -> Callable[[F], F]:
    """Mark a handler with its `Operation`."""
    of_handler = Operation(name, tag, statuses, errors, headers or {}, media)

    def mark(handler: F) -> F:
        setattr(handler, _ATTRIBUTE, of_handler)
        return handler

    return mark


def operation_of(handler: object) -> Operation | None:
    """None: the handler is of a page or a file."""
    found: Operation | None = getattr(handler, _ATTRIBUTE, None)
    return found
