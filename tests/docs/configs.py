"""Configurations of the documents: a fragment becomes whole, and the files that it names exist."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

from relay.config import model
from relay.config.document import read
from relay.config.fields import Section
from relay.config.load import load
from relay.config.model import Loaded
from tests.config.keyfiles import write_keys
from tests.support import service_account


def _keys(section: type[Section]) -> set[str]:
    return {field.alias or name for name, field in section.model_fields.items()}


FOREIGN = {"scrape_configs", "groups", "rule_files", "services", "apiVersion", "image", "framework"}
"""Top keys of Prometheus, Compose, Kubernetes, Helm values and Symfony."""
KEYS, UPSTREAM_KEYS = _keys(model.Config), _keys(model.Upstream)

_CONTENT = {
    "users_file": "users",
    "store_key_file": "store.key",
    "service_account_file": "service-account.json",
}


class Environment(dict[str, str]):
    """Every variable is set."""

    def __missing__(self, name: str) -> str:
        if name == "CREDENTIALS_DIRECTORY":
            raise KeyError(name)
        return "587" if "PORT" in name else "https://example.com" if "URL" in name else f"value-of-{name.lower()}"

    def get(self, name: str, default: Any = None) -> Any:
        return default if name == "CREDENTIALS_DIRECTORY" else self[name]

    def __contains__(self, name: object) -> bool:
        return name != "CREDENTIALS_DIRECTORY"


def from_top(fragment: Mapping[str, Any]) -> dict[str, Any] | None:
    """A fragment in its place below the top of the file: upstreams, or keys of one. None for what is no configuration
    of the relay."""
    if set(fragment) & KEYS:
        return dict(fragment)
    if all(isinstance(one, dict) and set(one) <= UPSTREAM_KEYS for one in fragment.values()):
        return {"upstreams": dict(fragment)}
    if set(fragment) <= UPSTREAM_KEYS:
        login = {"username": "relay@example.com", "auth": "xoauth2"} if "oauth2" in fragment else {}
        return {"upstreams": {"one": {"host": "smtp.example.com", **login, **fragment}}}
    return None


def whole(fragment: Mapping[str, Any], known: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """The fragment with what it leaves out: the upstreams and the lanes that it names."""
    config: dict[str, Any] = {"hostname": "relay.example.com", **fragment}
    lanes = dict(config.get("lanes") or {})
    for name in _lanes_named(config):
        lanes.setdefault(name, {"upstreams": []})
    upstreams = dict(config.get("upstreams") or {})
    if not lanes:
        lanes = {"otp": {"upstreams": list(upstreams)}, "bulk": {"upstreams": list(upstreams)}}
    for name in [name for one in [*lanes.values(), *config.get("rules", [])] for name in _listed(one.get("upstreams"))]:
        upstreams.setdefault(name, dict((known or {}).get(name) or {"host": f"{name}.example.net"}))
    upstreams = upstreams or {"ses": {"host": "ses.example.net"}}
    for lane in lanes.values():
        lane["upstreams"] = lane.get("upstreams") or list(upstreams)
    if "bulk" not in lanes and "default_lane" not in config and len(lanes) > 1:
        lanes["bulk"] = {"upstreams": list(upstreams)}
    return {**config, "upstreams": upstreams, "lanes": lanes}


def _lanes_named(config: Mapping[str, Any]) -> Iterator[str]:
    places = [*config.get("rules", []), *config.get("listen", [])]
    yield from (one["lane"] for one in places if one.get("lane"))
    if config.get("default_lane"):
        yield config["default_lane"]


def _listed(names: object) -> list[str]:
    if names is None:
        return []
    return [str(one) for one in names] if isinstance(names, list) else [str(names)]


class Files:
    """A folder in which every file that a configuration names is there."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._keys = folder / "made"
        if not self._keys.exists():
            write_keys(self._keys)
            (self._keys / "service-account.json").write_bytes(service_account.key_file())

    def load(self, config: object) -> Loaded:
        """Load a configuration whose files are put into this folder. Raises ConfigErrors."""
        path = self.folder / "relay.yaml"
        path.write_text(yaml.safe_dump(self.placed(config), sort_keys=False))
        return load(path, Environment(), machine_name=lambda: "machine.example.com")

    def placed(self, value: Any) -> Any:
        """The same configuration; the files that it names are made below the folder."""
        if isinstance(value, list):
            return [self.placed(one) for one in value]
        if not isinstance(value, dict):
            return value
        placed = {key: self.placed(one) for key, one in value.items()}
        for key, one in value.items():
            if str(key).endswith("_file") and one:
                names = [self._made(str(key), str(name), value) for name in _listed(one)]
                placed[key] = names if isinstance(one, list) else names[0]
            if key == "certificates" and isinstance(one, str):
                placed[key] = str(self.folder)
        return placed

    def _made(self, key: str, name: str, beside: Mapping[str, Any]) -> str:
        content = _CONTENT.get(key, "password")
        if key in ("cert_file", "ca_file"):
            content = "tls.crt"
        elif key == "key_file" and ("selector" in beside or "cert_file" in beside):
            content = "rsa2048.pem" if "selector" in beside else "tls.key"
        path = self.folder / "files" / name.lstrip("/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes((self._keys / content).read_bytes())
        path.chmod(0o600)
        return str(path)


def fragments(text: str) -> Iterator[dict[str, Any]]:
    """The documents of a YAML block that are the relay's, each from the top of the file on. Raises ValueError for
    mistakes in the YAML, and for documents of no program that the pages speak of."""
    for one in yaml.safe_load_all(text):
        fragment = from_top(one)
        if fragment is not None:
            if mistakes := read(text.encode(), Environment()).diagnostics:
                raise ValueError(mistakes)
            yield fragment
        elif not set(one) & FOREIGN:
            raise ValueError(f"no configuration of the relay: {sorted(one)}")
