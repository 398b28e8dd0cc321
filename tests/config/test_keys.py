"""DKIM keys at a load: one whose signatures don't hold is refused, `check` looks at the rest of its numbers too."""

from __future__ import annotations

import base64
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from relay.__main__ import main
from relay.config.errors import ConfigErrors
from relay.config.load import load


@pytest.fixture(scope="module")
def key() -> rsa.RSAPrivateKey:
    return rsa.generate_private_key(65537, 2048)


def configured(folder: Path, key: rsa.RSAPrivateKey, **wrong: int) -> Path:
    """A configuration that signs with `key`, some of whose numbers are more by so much."""
    private = key.private_numbers()
    der = key.private_bytes(Encoding.DER, PrivateFormat.TraditionalOpenSSL, NoEncryption())
    for name, more in wrong.items():
        true: int = getattr(private.public_numbers if name == "n" else private, name)
        size = (true.bit_length() + 7) // 8
        assert der.count(true.to_bytes(size)) == 1
        der = der.replace(true.to_bytes(size), (true + more).to_bytes(size))
    pem = b"-----BEGIN RSA PRIVATE KEY-----\n" + base64.encodebytes(der) + b"-----END RSA PRIVATE KEY-----\n"
    (folder / "s1.pem").write_bytes(pem)
    (folder / "s1.pem").chmod(0o600)
    path = folder / "relay.yaml"
    path.write_text(
        "upstreams: {mx: {host: 127.0.0.1, tls: none}}\nlanes: {otp: {upstreams: mx}}\n"
        "dkim: [{domain: example.com, keys: [{selector: s1, key_file: s1.pem}]}]\n"
    )
    return path


@pytest.mark.parametrize("wrong", [{"n": 2}, {"n": -1}, {"p": 2, "d": 2}], ids=str)
def test_a_key_whose_signatures_do_not_hold_is_refused(
    tmp_path: Path, key: rsa.RSAPrivateKey, wrong: dict[str, int]
) -> None:
    with pytest.raises(ConfigErrors, match=r"s1\.pem is damaged"):
        load(configured(tmp_path, key, **wrong), {})


def test_check_tells_of_a_key_that_signs_though_it_is_damaged(
    tmp_path: Path, key: rsa.RSAPrivateKey, capsys: pytest.CaptureFixture[str]
) -> None:
    # OpenSSL sees that the short way through p leads astray, and takes the long one through d.
    path = configured(tmp_path, key, p=2)
    assert load(path, {}).dkim_pems
    assert main(["check", "-c", str(path)]) == 0
    assert f"note: the key in {tmp_path}/s1.pem is damaged, though it still signs" in capsys.readouterr().out


def test_check_has_nothing_to_say_about_a_sound_key(
    tmp_path: Path, key: rsa.RSAPrivateKey, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["check", "-c", str(configured(tmp_path, key))]) == 0
    assert "note:" not in capsys.readouterr().out
