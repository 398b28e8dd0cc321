"""Read a few keys of a configuration file: the store's path, the HTTP address, the lanes' names.

The commands that ask a running relay start faster so: neither pydantic nor the rest of the file is needed.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from relay.config.document import MAX_BYTES, QUICK_PARSER, Document, read
from relay.config.errors import Places, plain
from relay.config.named_file import read_named_file
from relay.config.parse import DEFAULT_HTTP, DEFAULT_STORE, parse_duration, parse_share, parse_store

if TYPE_CHECKING:
    from relay.config.network import AnyAddress


class Control(NamedTuple):
    """What an action on the queue needs: the store, and the HTTP service of the relay that may be running."""

    store: Path
    hashed: bool
    """`log.addresses`"""
    http: AnyAddress | None
    """None: not readable by itself"""
    token: str | None
    places: Places


class Contact(NamedTuple):
    """The HTTP API's address, as the file has it, and whether it asks for a token."""

    address: str
    asks_for_token: bool


def find_store(path: Path, environ: Mapping[str, str]) -> Path | None:
    """The `store` of a configuration file, as `load` has it. Mistakes elsewhere in the file don't matter. None where
    `store` isn't readable by itself, or no such file exists: `load` then reports why."""
    try:
        return _store(path, _read(path, environ))
    except (ValueError, OSError):
        return None


def find_control(path: Path, environ: Mapping[str, str]) -> Control | None:
    """What an action on the queue needs of a configuration file. None as in `find_store`."""
    from relay.config.network import UnixAddress, parse_address

    try:
        document = _read(path, environ)
        store = _store(path, document)
        addresses = _value(document, "log", "addresses", "full")
    except (ValueError, OSError):
        return None
    if store is None or addresses not in ("full", "hashed"):
        return None
    control = Control(store, addresses == "hashed", None, None, Places(path, document.marks))
    try:
        address = parse_address(_value(document, "http", "address", DEFAULT_HTTP), None)
        token = _token(document, path)
    except ValueError:
        return control
    if not isinstance(token, str | None):
        return control
    if isinstance(address, UnixAddress):
        address = UnixAddress(str(path.absolute().parent / address.path))
    return control._replace(http=address, token=token)


def find_http(path: Path, environ: Mapping[str, str]) -> AnyAddress:
    """`http.address` of a configuration file; mistakes elsewhere in it don't matter, and no other file is looked at.
    Raises ValueError with what is wrong."""
    from relay.config.network import UnixAddress, parse_address

    document = _read(path, environ)
    address = parse_address(_value(document, "http", "address", DEFAULT_HTTP), None)
    return UnixAddress(str(path.absolute().parent / address.path)) if isinstance(address, UnixAddress) else address


def find_sender_domain(path: Path, environ: Mapping[str, str]) -> str | None:
    """The first domain that a configuration file signs for, else its `hostname`; None where neither is readable by
    itself."""
    try:
        data = _read(path, environ).data
    except (ValueError, OSError):
        return None
    dkim = data.get("dkim")
    first = dkim[0] if isinstance(dkim, tuple) and dkim else dkim
    domain = first.get("domain") if isinstance(first, dict) else None
    found = domain if isinstance(domain, str) else data.get("hostname")
    return str(found) if isinstance(found, str) else None


def find_contact(path: Path, environ: Mapping[str, str]) -> Contact:
    """The HTTP API of a configuration file; the default where that isn't readable by itself."""
    try:
        http = _read(path, environ).data["http"]
    except (ValueError, KeyError):
        http = None
    keys = http if isinstance(http, dict) else {}
    address = keys.get("address")
    if not isinstance(address, str) or not address.isprintable():
        address = DEFAULT_HTTP
    return Contact(address, asks_for_token=any(keys.get(key) is not None for key in ("token", "token_file")))


def find_lanes(path: Path, environ: Mapping[str, str]) -> tuple[str, ...]:
    """The names of a configuration file's lanes; none where they aren't readable by themselves."""
    try:
        lanes = _read(path, environ).data.get("lanes")
    except ValueError:
        return ()
    return tuple(map(plain, lanes)) if isinstance(lanes, dict) else ()


class ObjectiveKeys(NamedTuple):
    """A lane's objective, as `config.model.Objective` has it."""

    within_s: float
    share: float


def find_objectives(path: Path, environ: Mapping[str, str]) -> dict[str, ObjectiveKeys]:
    """The objectives of a configuration file's lanes, by lane; without those that aren't readable by themselves."""
    try:
        lanes = _read(path, environ).data.get("lanes")
    except (ValueError, OSError):
        return {}
    found: dict[str, ObjectiveKeys] = {}
    for name, lane in lanes.items() if isinstance(lanes, dict) else ():
        given = lane.get("objective") if isinstance(lane, dict) else None
        if isinstance(given, dict):
            with suppress(ValueError, KeyError):
                keys = ObjectiveKeys(parse_duration(given["within"], None), parse_share(given["share"], None))
                found[plain(name)] = keys
    return found


def _read(path: Path, environ: Mapping[str, str]) -> Document:
    """Raises ValueError."""
    document = read(read_named_file(path, MAX_BYTES), environ, parser=QUICK_PARSER)
    if not document.readable or not isinstance(document.data, dict):
        raise ValueError("not a mapping")
    return document


def _store(path: Path, document: Document) -> Path | None:
    """None where no such file exists. Raises ValueError, OSError."""
    if any(one.loc[:1] == ("store",) for one in document.diagnostics):
        return None
    store = path.absolute().parent / parse_store(document.data.get("store", str(DEFAULT_STORE)), None)
    try:
        return store if store.exists() else None
    except OSError:  # this user may not look there, which is to be reported, not what else is wrong
        return store


def _token(document: Document, path: Path) -> Any:
    """`http.token`, or what its file holds. Raises ValueError."""
    file = _value(document, "http", "token_file", None)
    if not isinstance(file, str):
        return _value(document, "http", "token", None)
    return read_named_file(path.absolute().parent / file).decode().rstrip("\r\n")


def _value(document: Document, section: str, key: str, default: str | None) -> Any:
    """Raises ValueError where the value has an error, or its section is no mapping."""
    if any(one.loc in ((section,), (section, key)) for one in document.diagnostics):
        raise ValueError(f"{section}.{key} has an error")
    found = document.data.get(section, {})
    if not isinstance(found, dict | None):
        raise ValueError(f"{section} is no mapping")  # noqa: TRY004 - as the parsers of values
    return (found or {}).get(key, default)
