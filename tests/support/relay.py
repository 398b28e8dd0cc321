"""The real relay as a process, with a configuration that names test upstreams.

config_file = write_config(tmp_path, {"fast": upstream})
async with RelayProcess(config_file) as relay:
    host, port = relay.smtp
    ...
    await relay.kill()
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from relay.demo.process import RelayFailed, RelayProcess
from tests.support.tls import Certificates
from tests.support.upstream import Upstream

__all__ = ["RelayFailed", "RelayProcess", "upstream_keys", "write_config"]


def upstream_keys(upstream: Upstream, certificates: Certificates | None = None, **keys: object) -> dict[str, object]:
    """How the configuration names a test upstream; `keys` add to that or replace it."""
    found: dict[str, object] = {"host": upstream.host, "port": upstream.port, "tls": upstream.tls or "none"}
    if upstream.tls is not None and certificates is not None:
        found["ca_file"] = str(certificates.ca_file)
    if upstream.auth:
        found["username"], found["password"] = next(iter(upstream.auth.items()))
    return {**found, **keys}


def write_config(directory: Path, upstreams: Mapping[str, Upstream | Mapping[str, object]], **keys: object) -> Path:
    """`relay.yaml` below `directory`: ephemeral ports, lanes `otp` (mail from auth.example.com) and `bulk` over all the
    upstreams in their order. `keys` replace whole top-level keys of the file."""
    named = list(upstreams)
    config: dict[str, Any] = {
        "listen": [{"address": "127.0.0.1:0"}],
        "http": {"address": "127.0.0.1:0"},
        "store": "relay.db",
        "hostname": "relay.example.com",
        "upstreams": {
            name: upstream_keys(one) if isinstance(one, Upstream) else dict(one) for name, one in upstreams.items()
        },
        "lanes": {
            "otp": {"upstreams": named, "retry": ["200ms", "1s", "3s"], "expires": "10m"},
            "bulk": {"upstreams": named, "retry": ["1s", "5s"], "expires": "2d"},
        },
        "rules": [{"name": "auth-sender", "match": {"sender": "*@auth.example.com"}, "lane": "otp"}],
        "default_lane": "bulk",
        "shutdown": "5s",
        **keys,
    }
    path = directory / "relay.yaml"
    path.write_text(yaml.safe_dump(config, sort_keys=False))
    return path
