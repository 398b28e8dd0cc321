"""What an operator may be shown of a configuration: no secret, and no value of the environment."""

from __future__ import annotations

from pathlib import Path

import yaml

from relay.config.load import load

TEXT = """
http: {address: 127.0.0.1:8025, token: "${RELAY_TOKEN}", read_token: literal-read-token}
hostname: ${NAME}.example.com
upstreams:
  ses:
    host: ${SES_HOST:-mx.example.net}
    username: AKIA-user-name
    password: literal-password
    tls: starttls
    proxy: socks5://proxy-user:proxy-password@127.0.0.1:1080
    headers: {X-PM-Message-Stream: codes, X-Auth-Token: header-secret, X-None: null}
lanes:
  otp: {upstreams: [ses], expires: 10m}
  bulk: {upstreams: ses}
rules:
  - {name: by-sender, match: {sender: ["no-reply@auth.example.com"]}, lane: otp}
events: [{url: "https://user:hook-password@app.example.com/hook", secret: whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw}]
"""
ENVIRON = {"RELAY_TOKEN": "token-of-the-environment", "NAME": "relay-7", "SES_HOST": "smtp.internal"}
SECRETS = (
    "token-of-the-environment", "literal-read-token", "AKIA-user-name", "literal-password", "proxy-password",
    "header-secret", "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", "relay-7", "smtp.internal",
)  # fmt: skip


def test_the_outline_is_the_file_without_its_secrets(tmp_path: Path) -> None:
    file = tmp_path / "relay.yaml"
    file.write_text(TEXT.replace("user:hook-password@", ""))
    outline = load(file, ENVIRON).outline
    shown = yaml.safe_dump(outline, allow_unicode=True)
    assert [secret for secret in SECRETS if secret in shown] == []
    assert outline["http"] == {"address": "127.0.0.1:8025", "token": "••••••", "read_token": "••••••"}
    assert outline["hostname"] == "${NAME}.example.com"
    ses = outline["upstreams"]["ses"]
    assert (ses["host"], ses["username"], ses["proxy"], ses["tls"]) == ("${SES_HOST}", "••••••", "••••••", "starttls")
    assert ses["headers"] == {"X-PM-Message-Stream": "codes", "X-Auth-Token": "••••••", "X-None": None}
    assert outline["events"] == [{"url": "https://app.example.com/hook", "secret": "••••••"}]
    assert outline["rules"][0]["match"] == {"sender": ["no-reply@auth.example.com"]}
    assert list(outline) == ["http", "hostname", "upstreams", "lanes", "rules", "events"]
