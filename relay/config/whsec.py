"""The secret of a receiver of events, as Standard Webhooks writes it."""

from __future__ import annotations

import base64
import binascii


def whsec_bytes(secret: str) -> bytes | None:
    """The key in a secret: base64, behind `whsec_` or not. None: it is none."""
    try:
        return base64.b64decode(secret.removeprefix("whsec_"), validate=True) or None
    except (binascii.Error, ValueError):
        return None
