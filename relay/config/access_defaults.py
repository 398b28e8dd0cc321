"""Fill in what an upstream leaves out about its API and OAuth 2: secrets from files, the provider, the URL."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from relay.config.document import Document
from relay.config.errors import Loc
from relay.config.secrets import with_secrets
from relay.providers.apis.registry import NAMES, api_named, api_of_preset, region_in
from relay.providers.registry import find_preset

DEFAULT_REGION = "us-east-1"
"""AWS's own default, where the URL of a private endpoint doesn't name the region"""
_API_SECRETS = ("key", "access_key_id", "secret_access_key")
_OAUTH2_SECRETS = ("client_id", "client_secret", "refresh_token")


def with_access(document: Document, folder: Path, loc: Loc, given: Mapping[str, Any]) -> dict[str, Any]:
    """An upstream's keys with its secrets read from their files."""
    keys: dict[str, Any] = with_secrets(document, folder, loc, dict(given), ("username", "password"))
    for section, secrets in (("api", _API_SECRETS), ("oauth2", _OAUTH2_SECRETS)):
        if isinstance(keys.get(section), dict):
            keys[section] = with_secrets(document, folder, (*loc, section), keys[section], secrets)
    return keys


def with_api(keys: dict[str, Any]) -> dict[str, Any]:
    """The keys with the API's provider, URL and region, and what the API says of recipients."""
    via, given = keys.get("via", "smtp"), keys.get("api") or {}
    if via not in ("api", "auto") or not isinstance(given, dict):
        return keys
    preset = keys.get("preset")
    kind = given.get("kind") or (api_of_preset(preset) if isinstance(preset, str) else None)
    if not isinstance(kind, str) or kind not in NAMES:
        return keys
    api = {**given, "kind": kind}
    if api_named(kind).needs == "aws" and api.get("region") is None:
        api["region"] = region_in(*(one for one in (api.get("url"), preset, keys.get("host")) if isinstance(one, str)))
        if api["region"] is None and api.get("url") is not None:
            api["region"] = DEFAULT_REGION
    if api.get("url") is None:
        known = find_preset(preset) if isinstance(preset, str) else None
        url = known.api_url if known is not None and known.api_url is not None else api_named(kind).url
        api["url"] = url.replace("{region}", str(api.get("region") or "REGION"))
    return {**keys, "api": api}
