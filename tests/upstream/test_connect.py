"""What an upstream is connected to with."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from relay.config.model import Upstream
from relay.upstream.server import Contexts
from relay.upstream.target import Target
from tests.support.tls import Certificates, make_certificates


def target(contexts: Contexts, **keys: Any) -> Target:
    return Target.of("up", Upstream(host="127.0.0.1", **keys), "relay.example.com", contexts)


def test_upstreams_that_trust_the_same_share_a_context_and_no_others_do(certificates: Certificates) -> None:
    contexts = Contexts()
    system = target(contexts)
    assert target(contexts, tls="implicit").tls_context is system.tls_context
    own = target(contexts, ca_file=certificates.ca_file)
    assert own.tls_context is not system.tls_context
    assert target(contexts, ca_file=certificates.ca_file).tls_context is own.tls_context
    assert target(contexts, tls="none").tls_context is None


def test_another_load_reads_the_files_again(certificates: Certificates) -> None:
    first, second = (target(Contexts(), ca_file=certificates.ca_file) for _ in range(2))
    assert first.tls_context is not second.tls_context


def test_a_ca_file_that_is_gone_is_an_os_error(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="No such file"):
        target(Contexts(), ca_file=tmp_path / "gone.pem")


def test_a_target_is_another_one_when_its_ca_file_was_replaced_on_the_disk(
    tmp_path: Path, certificates: Certificates
) -> None:
    ca_file = tmp_path / "ca.pem"
    ca_file.write_bytes(certificates.ca_file.read_bytes())
    before, after = (target(Contexts(), ca_file=ca_file) for _ in range(2))
    assert before.is_same(after)
    (other := tmp_path / "other").mkdir()
    ca_file.write_bytes(make_certificates(other).ca_file.read_bytes())
    assert not before.is_same(target(Contexts(), ca_file=ca_file))


@pytest.mark.parametrize("change", [{"port": 588}, {"password": "other"}, {"sessions": {"max": 3}}], ids=str)
def test_a_target_is_another_one_when_its_configuration_differs(change: dict[str, Any]) -> None:
    one = {"username": "app", "password": "secret"}
    assert target(Contexts(), **one).is_same(target(Contexts(), **one))
    assert not target(Contexts(), **one).is_same(target(Contexts(), **(one | change)))
