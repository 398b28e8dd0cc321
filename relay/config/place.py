"""Where the store and the HTTP service are, without the rest of the configuration and the libraries that check it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from relay.config.content import content
from relay.config.document import MAX_BYTES, QUICK_PARSER, read
from relay.config.parse import DEFAULT_HTTP, DEFAULT_STORE, parse_store


def find_store(path: Path, environ: Mapping[str, str]) -> Path | None:
    """The `store` of a configuration file, as `load` would have it; None where that isn't plain to see, or no file is
    there: `load` says why. Mistakes elsewhere in the file are let pass."""
    try:
        document = read(content(path, MAX_BYTES), environ, parser=QUICK_PARSER)
        if not document.readable or not isinstance(document.data, dict):
            return None
        if any(finding.loc[:1] == ("store",) for finding in document.findings):
            return None
        given = document.data.get("store", str(DEFAULT_STORE))
        store = path.absolute().parent / parse_store(given, None)
    except (ValueError, OSError):
        return None
    try:
        return store if store.exists() else None
    except OSError:  # this user may not look there: that is what is to be said, and not what else is wrong
        return store


def find_http(path: Path, environ: Mapping[str, str]) -> str:
    """The `http.address` of a configuration file as it is written; the default where that isn't plain to see."""
    try:
        document = read(content(path, MAX_BYTES), environ, parser=QUICK_PARSER)
        given = document.data["http"]["address"]
    except (ValueError, KeyError, TypeError):
        return DEFAULT_HTTP
    return given if isinstance(given, str) and given.isprintable() else DEFAULT_HTTP
