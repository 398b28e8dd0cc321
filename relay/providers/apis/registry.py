"""Finds an ESP's API by name. Its module is loaded when it is asked for: a relay uses one or two of them."""

from __future__ import annotations

import re
from functools import cache
from importlib import import_module

from relay.providers.api import Api
from relay.providers.registry import PROVIDERS, provider_of

NAMES = frozenset(provider.api for provider in PROVIDERS if provider.api is not None)
_REGION = re.compile(r"(?:^ses-|\bemail(?:-smtp)?\.)([a-z]{2}(?:-[a-z]+){1,3}-[0-9])(?:$|\.)")


@cache
def api_named(name: str) -> Api:
    """The API of that name, one of `NAMES`."""
    if name not in NAMES:
        raise KeyError(name)
    api = import_module(f"relay.providers.apis.{name}").API
    assert isinstance(api, Api)
    return api


def api_of_preset(preset: str) -> str | None:
    """The name of the API of a preset's provider; None: it has none that the relay knows."""
    provider = provider_of(preset)
    return provider.api if provider is not None else None


def region_in(*texts: str | None) -> str | None:
    """The AWS region in a preset's name, a host or a URL: the first that has one."""
    return next((found[1] for text in texts if text and (found := _REGION.search(text)) is not None), None)
