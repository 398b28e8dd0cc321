"""Private keys in PEM files: which are refused, and what `check` notes about the others."""

from __future__ import annotations

import base64
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import BestAvailableEncryption, Encoding, NoEncryption, PrivateFormat

from relay.__main__ import main
from relay.config.errors import ConfigErrors
from relay.config.load import load
from relay.config.private_keys import check_dkim_key, load_private_key
from relay.mail.dkim import dns_record
from tests.mail.material import ed25519_key, pem, rsa_key

KEY_FILE = Path("keys/s1.pem")


@pytest.fixture(scope="module")
def key() -> rsa.RSAPrivateKey:
    return rsa.generate_private_key(65537, 2048)


def configured(folder: Path, key: rsa.RSAPrivateKey, **wrong: int) -> Path:
    """A configuration that signs with `key`, after adding `wrong` to some of its numbers."""
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


def test_check_reports_a_key_that_signs_though_it_is_damaged(
    tmp_path: Path, key: rsa.RSAPrivateKey, capsys: pytest.CaptureFixture[str]
) -> None:
    # OpenSSL notices that the result by way of p is wrong, and computes it by way of d.
    path = configured(tmp_path, key, p=2)
    assert load(path, {}).dkim_pems
    assert main(["check", "-c", str(path)]) == 0
    assert f"note: the key in {tmp_path}/s1.pem is damaged, though it still signs" in capsys.readouterr().out


def test_check_reports_nothing_about_a_sound_key(
    tmp_path: Path, key: rsa.RSAPrivateKey, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["check", "-c", str(configured(tmp_path, key))]) == 0
    assert "note:" not in capsys.readouterr().out


@pytest.mark.parametrize("form", [PrivateFormat.PKCS8, PrivateFormat.TraditionalOpenSSL])
@pytest.mark.parametrize("line_end", [b"\n", b"\r\n"])
def test_rsa_keys_are_read_in_both_forms_with_any_line_end(form: PrivateFormat, line_end: bytes) -> None:
    read = load_private_key(KEY_FILE, pem(rsa_key(), form).replace(b"\n", line_end))
    assert isinstance(read, rsa.RSAPrivateKey)
    assert dns_record(read) == dns_record(rsa_key())


def test_an_ed25519_key_is_read_with_crlf() -> None:
    assert check_dkim_key(KEY_FILE, pem(ed25519_key()).replace(b"\n", b"\r\n")) is None


def encrypted() -> bytes:
    return ed25519_key().private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"pw"))


def pem_of_another_kind() -> bytes:
    return ec.generate_private_key(ec.SECP256R1()).private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


BAD_KEYS = [
    (b"", "expected a private key in PEM form"),
    (b"-----BEGIN PRIVATE KEY-----\nc2VjcmV0LXNlY3JldA==\n-----END PRIVATE KEY-----\n", "is damaged or of an unknown"),
    (encrypted(), "is encrypted"),
    (pem_of_another_kind(), "got another kind"),
]


@pytest.mark.parametrize(("content", "reason"), BAD_KEYS, ids=["empty", "garbage", "encrypted", "elliptic"])
def test_a_key_that_cannot_sign_is_named_by_its_file_and_not_shown(content: bytes, reason: str) -> None:
    with pytest.raises(ValueError, match=reason) as caught:
        check_dkim_key(KEY_FILE, content)
    assert "keys/s1.pem" in str(caught.value)
    assert "c2VjcmV0" not in str(caught.value)


def test_a_short_rsa_key_is_refused() -> None:
    short = pem(rsa.generate_private_key(65537, 1024))
    assert check_dkim_key(KEY_FILE, short) == "the key has 1024 bits; 2048 are advised (RFC 8301)"
    # The library makes no shorter ones, so the bound itself is moved.
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("relay.config.private_keys.MIN_RSA_BITS", 2048)
        with pytest.raises(ValueError, match="got 1024"):
            check_dkim_key(KEY_FILE, short)
