"""relay.yaml as `otp-relay init` writes it: short, commented, and valid."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator

from relay.setup.dkim_keys import file_name
from relay.setup.plan import LOCAL, LOCAL_PORT, OTHER, PLACEHOLDER, SELECTORS, Account, Plan

SCHEMA_FILE = "relay.schema.json"
SYSTEMD_STORE = "/var/lib/otp-relay/relay.db"
"""the unit's StateDirectory"""
_HEAD = f"""\
# yaml-language-server: $schema={SCHEMA_FILE}
# Written by `otp-relay init`. Change what you like; `otp-relay check -c relay.yaml` says whether it is right.
# docs/keys.md lists every key, and config/relay.yaml shows each with an example.
#
# Durations 200ms 2s 10m 1h 2d · rates 50/s · ${{NAME}} is an environment variable
# Relative paths are relative to this file's folder.
"""
_UNKNOWN_HOST = f"{PLACEHOLDER}.example.com"
_PLAIN = re.compile(r"[A-Za-z][A-Za-z0-9_./@-]*|[0-9]+\.[0-9]+\.[0-9]+\.[0-9]+(?:[:/][0-9]+)?")
_WORDS = frozenset({"true", "false", "null", "yes", "no", "on", "off"})


def relay_yaml(plan: Plan) -> str:
    """The file's text."""
    parts = (_listen(plan), _store(plan), _upstreams(plan), _lanes(plan), _rules(plan), _dkim(plan))
    return _HEAD + "".join("\n" + "\n".join(part) + "\n" for part in parts)


def scalar(text: str) -> str:
    """A text as YAML; `${` in it stays as it is."""
    if _PLAIN.fullmatch(text) and text.lower() not in _WORDS:
        return text
    return json.dumps(text.replace("${", "$${"), ensure_ascii=False)


def _listen(plan: Plan) -> Iterator[str]:
    address = plan.listen
    yield "# Where your app submits mail. Point its SMTP settings here; it needs no TLS and no password."
    yield "listen:"
    if plan.runner == "compose":
        address = f"0.0.0.0:{address.rpartition(':')[2]}"
    yield f"  - address: {scalar(address)}"
    if plan.allow:
        yield f"    allow: [{', '.join(scalar(one) for one in plan.allow)}]   # the networks of your apps"
    yield ""
    yield "# Metrics, health, API, console: http://127.0.0.1:8025/ on this machine."
    yield "http:"
    yield "  address: 127.0.0.1:8025          # off loopback it needs a token"


def _store(plan: Plan) -> Iterator[str]:
    yield "# Waiting mail and the log: one SQLite file, which the first start makes."
    yield f"store: {SYSTEMD_STORE if plan.runner == 'systemd' else 'data/relay.db'}"
    if plan.runner == "compose":
        yield f"hostname: {scalar(f'otp-relay.{plan.domain}')}   # EHLO name; a container has none of its own"


def _file(plan: Plan, folder: str, name: str) -> str:
    """The path of a secret. As a service the relay reads systemd's copy, which root alone can read where it lies."""
    return f"${{CREDENTIALS_DIRECTORY:-{folder}}}/{name}" if plan.runner == "systemd" else f"{folder}/{name}"


def _upstreams(plan: Plan) -> Iterator[str]:
    yield "# Who delivers. A preset fills host, port, TLS and the provider's limits; each key can be overridden."
    yield "upstreams:"
    for one in plan.accounts:
        yield f"  {one.name}:"
        yield from (f"    {line}" for line in _account(plan, one))


def _account(plan: Plan, one: Account) -> Iterator[str]:
    secret = _file(plan, "secrets", one.name)
    if one.preset == LOCAL:
        yield "host: 127.0.0.1                  # a mail catcher, such as Mailpit: nothing leaves this machine"
        yield f"port: {LOCAL_PORT}"
        yield "tls: none"
        return
    if one.preset == OTHER:
        yield f"host: {scalar(one.host or _UNKNOWN_HOST)}"
        yield "tls: starttls                    # none | starttls | implicit; port 587 or 465 by it"
    else:
        yield f"preset: {one.preset}   # `otp-relay presets {one.preset}` shows what it fills"
        if one.needs_host is not None:
            yield f"host: {scalar(one.host or _UNKNOWN_HOST)}   # {one.needs_host}"
    if one.needs_username is not None:
        yield f"username: {scalar(one.username or PLACEHOLDER)}   # {one.needs_username}"
    if one.with_token:
        yield from _token(one, secret)
        return
    if one.known is not None and "oauth2" in one.known.sample:
        yield "auth: password                   # an app password; docs/apis.md has a way with access tokens"
    yield f"password_file: {secret}"
    if one.known is not None:
        yield from (f"# {note}" for note in one.known.facts.notes)


def _token(one: Account, secret: str) -> Iterator[str]:
    assert one.known is not None, "a preset says that it wants a token"
    sample = one.known.sample["oauth2"]
    yield "oauth2:                          # docs/apis.md goes through it"
    yield f"  grant: {sample['grant']}"
    yield f"  token_url: {sample['token_url'].replace('TENANT', one.oauth2.get('tenant', 'TENANT'))}"
    yield f"  client_id: {scalar(one.oauth2.get('client_id', PLACEHOLDER))}"
    yield f"  client_secret_file: {secret}"
    yield f"  scope: {sample['scope']}"
    yield from (f"# {note}" for note in one.known.facts.notes)


def _lanes(plan: Plan) -> Iterator[str]:
    names = [one.name for one in plan.accounts]
    yield "lanes:"
    yield "  # One-time codes: their own open connections, and never behind other mail."
    yield "  otp:"
    yield f"    upstreams: [{', '.join(names)}]" + ("   # the next one takes over" if len(names) > 1 else "")
    yield "    expires: 10m                   # an older code is never sent"
    if len(names) > 1:
        yield "    hedge: 2s                      # without an answer for so long, the next upstream is asked, too"
    yield "    supersede: true                # a newer code ends the older, unsent one"
    yield "  # Everything else."
    yield "  bulk:"
    yield f"    upstreams: [{names[-1]}]"
    yield "    # rate: 20/s                   # where the provider allows your account only so many"
    yield ""
    yield "default_lane: bulk                 # for mail that no rule matches"


def _rules(plan: Plan) -> Iterator[str]:
    yield "# The first rule that matches names the lane. `otp-relay explain FILE.eml` shows which one does, and why."
    yield "rules:"
    yield "  - name: explicit                 # your app says so itself; the field is removed before sending"
    yield "    match: {header: {X-Relay-Lane: otp}}"
    yield "    lane: otp"
    if plan.senders:
        yield "  - name: code-senders             # From, or the envelope's sender"
        yield f"    match: {{sender: [{', '.join(_quoted(one) for one in plan.senders)}]}}"
        yield "    lane: otp"
    yield "  - name: looks-like-a-code        # the built-in detector"
    yield f'    match: {{content: otp, sender: ["*@{plan.domain}", "*.{plan.domain}"]}}'
    yield "    lane: otp"


def _quoted(pattern: str) -> str:
    return json.dumps(pattern.replace("${", "$${"), ensure_ascii=False)


def _dkim(plan: Plan) -> Iterator[str]:
    yield "# Mail whose From is at this domain or below it is signed with both keys. dns.txt has their records."
    yield "dkim:"
    yield f"  - domain: {plan.domain}"
    yield "    keys:"
    for selector, _ in SELECTORS:
        yield f"      - {{selector: {selector}, key_file: '{_file(plan, 'keys', file_name(plan.domain, selector))}'}}"
