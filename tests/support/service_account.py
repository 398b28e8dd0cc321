"""A key file of a Google service account."""

from __future__ import annotations

import json
from functools import cache
from typing import Any

from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey, generate_private_key
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat


@cache
def key() -> RSAPrivateKey:
    return generate_private_key(65537, 2048)


def pem(private: Any) -> str:
    return str(private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode())


def key_file(**keys: Any) -> bytes:
    value = {
        "type": "service_account",
        "private_key_id": "key-1",
        "private_key": pem(key()),
        "client_email": "relay@project.iam.gserviceaccount.com",
        "token_uri": "https://oauth2.googleapis.com/token",
    }
    return json.dumps(value | keys).encode()
