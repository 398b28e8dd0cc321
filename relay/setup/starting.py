"""What starts the relay: a unit of systemd, or a compose file."""

from __future__ import annotations

import os
import re
import sys
from importlib import resources
from pathlib import Path

from relay.setup.dkim_keys import file_name
from relay.setup.plan import SELECTORS, Plan

UNIT = "otp-relay.service"
COMPOSE = "compose.yaml"
INSTALLED = "/etc/otp-relay"
"""where the unit expects the folder"""
PROGRAM = "/opt/otp-relay/bin/otp-relay"
"""the unit's program, where this one can't be the service's"""
_UNREACHABLE = ("/home/", "/root/", "/tmp/", "/run/user/")  # noqa: S108
"""what ProtectHome and PrivateTmp hide from the service"""


def program() -> str:
    """The program that the unit starts: this installation's, unless the service could not see it."""
    found = Path(sys.executable).parent / "otp-relay"
    return PROGRAM if str(found).startswith(_UNREACHABLE) or not found.exists() else str(found)


def unit_text(plan: Plan) -> str:
    """The unit of systemd/ with this installation's program, and with credentials in the place of the examples."""
    text = resources.files("relay.setup").joinpath(UNIT).read_text(encoding="utf-8")
    text = text.replace(PROGRAM, program())
    text = re.sub(r"^#LoadCredential=.*\n", "", text, flags=re.MULTILINE)
    files = [("secrets", one.name) for one in plan.accounts if one.has_secret]
    files += [("keys", file_name(plan.domain, selector)) for selector, _ in SELECTORS]
    credentials = "".join(f"LoadCredential={name}:{INSTALLED}/{folder}/{name}\n" for folder, name in files)
    comment = "# The secrets of relay.yaml: root alone reads them, and the service gets copies.\n"
    return text.replace("\n[Install]", f"\n{comment}{credentials}\n[Install]", 1)


def compose_text(plan: Plan) -> str:
    """A compose file with one service, which uses the folder that it lies in."""
    port = plan.listen.rpartition(":")[2]
    return f"""\
# docker compose up -d     The image: `docker build -t otp-relay .` in a checkout of otp-relay.
services:
  otp-relay:
    image: otp-relay
    command: [run, -c, {INSTALLED}/relay.yaml]
    hostname: otp-relay.{plan.domain}
    # The owner of these files: secrets/ and keys/ are readable by it only.
    user: "{os.getuid()}:{os.getgid()}"
    init: true
    read_only: true
    tmpfs: [/tmp]
    cap_drop: [ALL]
    security_opt: ["no-new-privileges:true"]
    # Apps in this compose project submit to otp-relay:{port}; those on the host to {plan.listen}.
    ports: ["{plan.listen}:{port}"]
    volumes:
      - .:{INSTALLED}:ro
      - ./data:{INSTALLED}/data
    healthcheck:
      test: [CMD, otp-relay, ready, -c, {INSTALLED}/relay.yaml]
      interval: 10s
      timeout: 5s
      start_period: 10s
    # More than `shutdown` of relay.yaml: a drain ends by itself.
    stop_grace_period: 45s
    restart: unless-stopped
"""
