"""Amazon SES, one SMTP endpoint a region.

It rewrites Message-ID, Date and Return-Path, and keeps a signature that doesn't cover them. It closes a session after
about 10 s of silence, so one is retired before that.
"""

from __future__ import annotations

import re

from relay.providers.base import Preset, Provider

_REGION = re.compile(r"ses-([a-z]{2}(?:-[a-z]+){1,3}-[0-9])")
_KEYS = {
    "port": 465,
    "tls": "implicit",
    "recipients": 50,
    # Seen in transcripts: `451 4.4.2 Timeout waiting for data from client` after about 10 s.
    "sessions": {"idle": "8s"},
    "unsigned_headers": ("message-id", "date", "return-path"),
}
_USERNAME = "the SMTP user name of that region (AKIA...)"


def _regional(name: str) -> Preset | None:
    """`ses-eu-west-1` and the like."""
    region = _REGION.fullmatch(name)
    if region is None:
        return None
    return Preset({"host": f"email-smtp.{region[1]}.amazonaws.com", **_KEYS}, {"username": _USERNAME})


PROVIDER = Provider(
    name="ses",
    presets={
        "ses": Preset(
            _KEYS,
            {
                "host": "email-smtp.REGION.amazonaws.com, or name the region in the preset, as in ses-eu-west-1",
                "username": _USERNAME,
            },
        )
    },
    account_errors=(r"not (?:yet )?verified",),  # 554 Message rejected: Email address is not verified
    correlation_header="X-SES-MESSAGE-TAGS",
    preset_by_name=_regional,
)
