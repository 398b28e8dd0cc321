"""The demo's configuration: a DKIM key, two stand-in upstreams, ephemeral ports."""

from __future__ import annotations

from pathlib import Path

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from relay.demo import traffic
from relay.demo.standin import Behaviour, Hiccups

FAST = Behaviour(latency_s=(0.008, 0.015))
SLOW = Behaviour(
    latency_s=(0.08, 0.25),
    refusals=0.02,
    hiccups=Hiccups(traffic.NEWS_SENDER, first_s=10.0, every_s=20.0, last_s=4.0),
)

_CONFIG = """\
listen:
  - address: 127.0.0.1:0
http:
  address: 127.0.0.1:0
store: relay.db
hostname: demo.localhost
upstreams:
  fast: {{host: 127.0.0.1, port: {fast}, tls: none}}
  slow: {{host: 127.0.0.1, port: {slow}, tls: none, sessions: {{max: 10}}}}
lanes:
  otp:
    upstreams: [fast, slow]
    retry: [200ms, 1s, 3s, 8s]
    expires: 10m
    hedge: 2s
  bulk:
    upstreams: [slow]
    retry: [2s, 5s, 15s, 1m]
    expires: 1d
    concurrency: 4
rules:
  - name: auth-sender
    match: {{sender: "codes@auth.demo.example"}}
    lane: otp
default_lane: bulk
dkim:
  - domain: demo.example
    keys:
      - {{selector: demo, key_file: demo.pem}}
shutdown: 2s
"""


def write(directory: Path, *, fast_port: int, slow_port: int) -> Path:
    """Write the configuration and its key into `directory`. Returns the configuration file."""
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    key_file = directory / "demo.pem"
    key_file.touch(mode=0o600)
    key_file.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    config_file = directory / "relay.yaml"
    config_file.write_text(_CONFIG.format(fast=fast_port, slow=slow_port))
    return config_file
