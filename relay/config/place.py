"""Where the store and the HTTP service are, without the rest of the configuration and the libraries that check it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from relay.config.content import content
from relay.config.document import MAX_BYTES, QUICK_PARSER, Document, read
from relay.config.errors import Places, plain
from relay.config.parse import DEFAULT_HTTP, DEFAULT_STORE, parse_store

if TYPE_CHECKING:
    from relay.config.network import AnyAddress


class Control(NamedTuple):
    """What an action on the queue needs of a configuration file."""

    store: Path
    hashed: bool
    """`log.addresses`"""
    http: AnyAddress | None
    """None: not plain to see"""
    token: str | None
    places: Places


class Contact(NamedTuple):
    """Where the HTTP API is, as the file has it, and whether it asks for a token."""

    address: str
    asks_for_token: bool


def find_store(path: Path, environ: Mapping[str, str]) -> Path | None:
    """The `store` of a configuration file, as `load` would have it; None where that isn't plain to see, or no file is
    there: `load` says why. Mistakes elsewhere in the file are let pass."""
    try:
        return _store(path, _read(path, environ))
    except (ValueError, OSError):
        return None


def find_control(path: Path, environ: Mapping[str, str]) -> Control | None:
    """As `find_store`, with what else an action on the queue needs."""
    from relay.config.network import UnixAddress, parse_address

    try:
        document = _read(path, environ)
        store = _store(path, document)
        addresses = _value(document, "log", "addresses", "full")
    except (ValueError, OSError):
        return None
    if store is None or addresses not in ("full", "hashed"):
        return None
    places = Places(path, document.marks)
    try:
        address = parse_address(_value(document, "http", "address", DEFAULT_HTTP), None)
        token = _value(document, "http", "token", None)
        if not isinstance(token, str | None):
            raise ValueError("expected a text")  # noqa: TRY004
    except ValueError:
        return Control(store, addresses == "hashed", None, None, places)
    if isinstance(address, UnixAddress):
        address = UnixAddress(str(path.absolute().parent / address.path))
    return Control(store, addresses == "hashed", address, token, places)


def find_contact(path: Path, environ: Mapping[str, str]) -> Contact:
    """Of a configuration file; the default where that isn't plain to see."""
    try:
        http = _read(path, environ).data["http"]
    except (ValueError, KeyError, TypeError):
        return Contact(DEFAULT_HTTP, asks_for_token=False)
    given = http.get("address") if isinstance(http, dict) else None
    address = given if isinstance(given, str) and given.isprintable() else DEFAULT_HTTP
    return Contact(address, asks_for_token=isinstance(http, dict) and http.get("token") is not None)


def find_lanes(path: Path, environ: Mapping[str, str]) -> tuple[str, ...]:
    """The names of a configuration file's lanes; none where they aren't plain to see."""
    try:
        lanes = _read(path, environ).data.get("lanes")
    except ValueError:
        return ()
    return tuple(map(plain, lanes)) if isinstance(lanes, dict) else ()


def _read(path: Path, environ: Mapping[str, str]) -> Document:
    """Raises ValueError."""
    document = read(content(path, MAX_BYTES), environ, parser=QUICK_PARSER)
    if not document.readable or not isinstance(document.data, dict):
        raise ValueError("not a mapping")
    return document


def _store(path: Path, document: Document) -> Path | None:
    """Raises ValueError, OSError."""
    if any(finding.loc[:1] == ("store",) for finding in document.findings):
        return None
    store = path.absolute().parent / parse_store(document.data.get("store", str(DEFAULT_STORE)), None)
    try:
        return store if store.exists() else None
    except OSError:  # this user may not look there: that is what is to be said, and not what else is wrong
        return store


def _value(document: Document, section: str, key: str, default: str | None) -> Any:
    """Raises ValueError where a finding is about it, or its section is no mapping."""
    if any(finding.loc[:1] == (section,) and finding.loc[1:] in ((), (key,)) for finding in document.findings):
        raise ValueError(f"{section}.{key} isn't plain to see")
    found = document.data.get(section, {})
    if not isinstance(found, dict | None):
        raise ValueError(f"{section} is no mapping")  # noqa: TRY004 - as the parsers of values
    return (found or {}).get(key, default)
