"""A configuration file → `Loaded`, or every mistake in it at once."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from relay.config import checks, defaults, files, presets
from relay.config.content import content
from relay.config.document import MAX_BYTES, Document, read
from relay.config.errors import ConfigError, ConfigErrors, Finding, Loc, Places, dotted
from relay.config.model import Config, Loaded
from relay.config.parse import DEFAULT_STORE
from relay.config.validate import SECRETS, suggestion, validate
from relay.config.values import Expanded, Origin, shown, the_value_of, userinfo

MOST_ERRORS = 100
_UNREAD = Expanded("unread", {"unread": "unread"})


def load(
    path: Path,
    environ: Mapping[str, str],
    *,
    machine_name: Callable[[], str] = defaults.machine_name,
    users_may_lack: bool = False,
) -> Loaded:
    """Read, check and type a configuration.

    Files it names (passwords, keys, certificates) are read and checked too, so that nothing is looked at again later.
    `machine_name` is asked where the file names no `hostname`. `users_may_lack`: a users file may be missing, as before
    its first user is added. Raises ConfigErrors with all that is wrong.
    """
    try:
        given = content(path, MAX_BYTES)
    except ValueError as error:
        raise ConfigErrors([ConfigError(str(path), 0, 0, "", str(error).removesuffix(f": {path}"))]) from None
    document = read(given, environ)
    if document.readable and not isinstance(document.data, dict):
        got = "nothing but comments" if document.data is None else shown(document.data)
        document.findings.append(Finding((), f"expected a mapping that begins with a key such as lanes:, got {got}"))
        document.readable = False
    if not document.readable:
        raise ConfigErrors(_errors(path, document, document.findings))
    origin = Origin(path.absolute().parent)
    data = _Completion(document, origin).completed(machine_name)
    credential = files.store_key_credential(environ)
    if data.get("store_key_file") is None and credential is not None:
        data["store_key_file"] = str(credential.absolute())
    return _loaded(path, document, data, origin, users_may_lack=users_may_lack)


def _loaded(path: Path, document: Document, data: Mapping[str, Any], origin: Origin, *, users_may_lack: bool) -> Loaded:
    own = list(document.findings)
    validated = validate(data, origin)
    pems: dict[Path, bytes] = {}
    store_keys: list[bytes] = []
    others = [
        *validated.findings,
        *checks.check(data, validated.sections),
        *files.check(validated.sections, files.utc_now(), pems, users_may_lack=users_may_lack),
        *_store_key(validated.config, store_keys),
    ]
    scrub = _scrubber(document.data)
    placed = (finding._replace(loc=document.written(finding.loc)) for finding in others)
    told = [scrub(finding) for finding in (*own, *_unsaid(document, placed))]
    if errors := _errors(path, document, [finding for finding in told if finding.kind == "error"]):
        raise ConfigErrors(errors)
    if validated.config is None:
        raise AssertionError("no configuration, and nothing wrong with it")
    notes = _errors(path, document, [finding for finding in told if finding.kind == "note"])
    return Loaded(
        validated.config,
        path,
        tuple(f"{note.file}:{note.line}: {note.key}: {note.message}" for note in notes),
        pems,
        tuple(store_keys),
        Places(path, document.marks),
    )


def _store_key(config: Config | None, keys: list[bytes]) -> Iterator[Finding]:
    """The keys found are put into `keys`."""
    if config is None or config.store_key_file is None:
        return
    try:
        keys += files.store_keys(config.store_key_file)
    except ValueError as error:
        yield Finding(("store_key_file",), str(error))
        return
    yield from files.secret(("store_key_file",), config.store_key_file)


def _unsaid(document: Document, findings: Iterable[Finding]) -> Iterator[Finding]:
    """Without the consequences of what was said already."""
    for finding in findings:
        if not any(finding.loc[:n] in document.broken for n in range(len(finding.loc) + 1)):
            yield finding


def _errors(path: Path, document: Document, findings: Iterable[Finding]) -> list[ConfigError]:
    """Findings with their places, in the order of the file, each said once."""
    placed = {(document.place(finding), dotted(finding.loc), finding.message): None for finding in findings}
    ordered = sorted(placed, key=lambda item: (item[0].line, item[0].column))
    errors = [ConfigError(str(path), mark.line, mark.column, key, message) for mark, key, message in ordered]
    if (more := len(errors) - MOST_ERRORS) > 0:
        last = errors[MOST_ERRORS - 1]
        errors[MOST_ERRORS:] = [ConfigError(str(path), last.line, last.column, "", f"and {more} more from here on")]
    return errors


def _scrubber(data: Any) -> Callable[[Finding], Finding]:
    """A last line: whatever a message quotes, secrets and what came out of the environment aren't in it."""
    hidden: dict[str, str] = {}
    _collect(data, None, hidden)
    userinfos = {text for text in map(userinfo, _texts(data)) if text is not None}

    def scrub(finding: Finding) -> Finding:
        message = finding.message
        for text, instead in sorted(hidden.items(), key=lambda item: -len(item[0])):
            message = message.replace(repr(text), instead).replace(repr(text[:60]) + "...", instead)
            if len(text) >= 8:
                message = message.replace(text, instead)
        for text in userinfos:  # as a part of a path, for one
            message = message.replace(text, "...@")
        return (
            finding
            if message == finding.message
            else Finding(finding.loc, message, finding.kind, finding.at, finding.mark)
        )

    return scrub


def _collect(value: Any, key: str | None, hidden: dict[str, str]) -> None:
    match value:
        case dict():
            for inner, item in value.items():
                _collect(item, inner, hidden)
        case tuple():
            for item in value:
                _collect(item, key, hidden)
        case Expanded():
            hidden[str(value)] = repr(value)
            hidden.update((inner, the_value_of(name)) for name, inner in value.variables.items() if len(inner) > 3)
        case str() if value and key in SECRETS:
            hidden[value] = f"the value of {key}"


def _texts(value: Any) -> Iterator[str]:
    """Every text in it."""
    match value:
        case dict():
            for item in value.values():
                yield from _texts(item)
        case tuple():
            for item in value:
                yield from _texts(item)
        case str():
            yield value


class _Completion:
    """Fills in what depends on other keys or stands in a file, before types are looked at."""

    def __init__(self, document: Document, origin: Origin) -> None:
        self.document = document
        self.origin = origin

    def completed(self, machine_name: Callable[[], str]) -> dict[str, Any]:
        data = dict(self.document.data)
        for key in ("listen", "rules", "dkim"):
            if key in data and data[key] is None and key != "listen":
                data[key] = ()  # all of it commented out
            if isinstance(data.get(key), dict):
                data[key] = (data[key],)  # one stands for a list of one
        data.setdefault("store", str(DEFAULT_STORE))
        if data.get("hostname") is None:
            data["hostname"] = machine_name()
        if isinstance(listen := data.get("listen"), tuple):
            data["listen"] = tuple(_local_only(listener) for listener in listen)
        if isinstance(upstreams := data.get("upstreams"), dict):
            data["upstreams"] = {name: self.upstream(name, given) for name, given in upstreams.items()}
        else:
            upstreams = {}
        if not upstreams:
            self.document.broken.update(("lanes", name, "upstreams") for name in _mapping(data.get("lanes")))
        lanes = _mapping(data.get("lanes"))
        if lanes:
            data["lanes"] = {
                name: defaults.lane(name, given) if isinstance(given, dict) else given for name, given in lanes.items()
            }
            self.default_lane(data, lanes)
        else:
            self.document.broken.add(("default_lane",))
        return data

    def say(self, loc: Loc, message: str, *, missing: bool = False) -> None:
        self.document.findings.append(Finding(loc, message, at="key" if missing else "value"))
        self.document.broken.add(loc)

    def default_lane(self, data: dict[str, Any], lanes: Mapping[str, Any]) -> None:
        if data.get("default_lane") is not None or not lanes:
            return
        data["default_lane"] = defaults.default_lane(lanes)
        if data["default_lane"] is None:
            self.say(("default_lane",), "missing: name the lane of mail that no rule claims", missing=True)

    def upstream(self, name: str, given: Any) -> Any:
        if not isinstance(given, dict):
            return given
        loc: Loc = ("upstreams", name)
        keys = self.with_password(loc, given)
        preset = keys.get("preset")
        if isinstance(preset, str):
            known = presets.find(preset)
            if known is None:
                close = presets.nearest(preset)
                self.say((*loc, "preset"), f"there is no preset {shown(preset)}{suggestion([close] if close else [])}")
                self.document.broken.add((*loc, "host"))
            else:
                keys = presets.filled(keys, known)
                for key, what in known.needs:
                    if keys.get(key) is None and (key != "username" or keys.get("password") is None):
                        self.say((*loc, key), f"missing: preset {preset} needs {key}: {what}", missing=True)
        if "port" not in keys:
            keys["port"] = defaults.port(keys.get("tls", "starttls"))
        return keys

    def with_password(self, loc: Loc, given: Mapping[str, Any]) -> dict[str, Any]:
        keys = dict(given)
        file = keys.get("password_file")
        if not isinstance(file, str) or not file:
            return keys
        if keys.get("password") is not None:
            self.say((*loc, "password_file"), "password is given too; keep one of the two")
            return keys
        try:
            keys["password"] = files.password(self.origin.folder / file)
        except ValueError as error:
            self.say((*loc, "password_file"), str(error))
            keys["password"] = _UNREAD
        return keys


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}


def _local_only(listener: Any) -> Any:
    """systemd's sockets have an address that isn't known here: without `allow` they serve this machine only."""
    if not isinstance(listener, dict) or not str(listener.get("address")).startswith("systemd:"):
        return listener
    if listener.get("allow") or listener.get("auth") == "required":
        return listener
    return {**listener, "allow": ("127.0.0.0/8", "::1/128")}
