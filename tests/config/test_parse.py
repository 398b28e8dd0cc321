from __future__ import annotations

from ipaddress import IPv4Network, ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.config.masking import Expanded, shown
from relay.config.network import (
    SystemdAddress,
    TcpAddress,
    UnixAddress,
    is_host,
    is_loopback,
    parse_address,
    parse_network,
)
from relay.config.parse import parse_duration, parse_rate, parse_size
from relay.config.rate_limit import CountPer, parse_rate_limit


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("200ms", 0.2), ("2s", 2), ("1.5s", 1.5), ("10m", 600), ("1h", 3600), ("2d", 172800), ("3650d", 315360000)],
)
def test_a_duration_is_seconds(text: str, seconds: float) -> None:
    assert parse_duration(text, None) == pytest.approx(seconds)


@pytest.mark.parametrize(
    "text", ["", "s", "10", " 10s", "10s ", "10S", "1h30m", "-1s", "+1s", "1e3s", "٣s", "0s", ".5s"]
)
def test_a_malformed_duration_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="expected a duration"):
        parse_duration(text, None)


@given(st.text(max_size=20))
def test_a_duration_is_positive_or_refused(text: str) -> None:
    try:
        seconds = parse_duration(text, None)
    except ValueError:
        return
    assert 0 < seconds <= 3650 * 86400


@pytest.mark.parametrize(
    ("text", "size_bytes"),
    [("1B", 1), ("30MB", 30_000_000), ("30 MB", 30_000_000), ("1.5KB", 1500), ("1KiB", 1024), ("2GiB", 2**31)],
)
def test_a_size_is_bytes(text: str, size_bytes: int) -> None:
    assert parse_size(text, None) == size_bytes


@pytest.mark.parametrize(("text", "rate"), [("50/s", 50), ("30/m", 0.5), ("0.5/s", 0.5), ("3600/h", 1)])
def test_a_rate_is_a_second(text: str, rate: float) -> None:
    assert parse_rate(text, None) == pytest.approx(rate)


def test_a_limit_is_a_count_and_its_period() -> None:
    assert parse_rate_limit("5/90m") == CountPer(5, 5400)


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("127.0.0.1:25", TcpAddress("127.0.0.1", 25)),
        ("[::1]:0", TcpAddress("::1", 0)),
        ("mail.example.com:65535", TcpAddress("mail.example.com", 65535)),
        ("unix:/run/a:b.sock", UnixAddress("/run/a:b.sock")),
        ("systemd:smtp-in", SystemdAddress("smtp-in")),
    ],
)
def test_an_address_is_read_and_written_alike(text: str, address: object) -> None:
    assert parse_address(text, None) == address
    assert str(address) == text


@given(st.text(max_size=30))
def test_an_address_is_written_as_it_was_read_or_refused(text: str) -> None:
    try:
        address = parse_address(text, None)
    except ValueError:
        return
    assert parse_address(str(address), None) == address


@pytest.mark.parametrize(
    ("text", "network"),
    [
        ("10.0.0.0/8", "10.0.0.0/8"),
        ("192.0.2.7", "192.0.2.7/32"),
        ("2001:db8::/32", "2001:db8::/32"),
        ("::ffff:10.0.0.0/104", "10.0.0.0/8"),
        ("::ffff:192.0.2.7", "192.0.2.7/32"),
        ("::/0", "::/0"),
    ],
)
def test_a_network_of_mapped_addresses_is_its_ipv4_one(text: str, network: str) -> None:
    assert parse_network(text) == ip_network(network)


@given(st.integers(0, 2**32 - 1), st.integers(0, 32))
def test_every_ipv4_network_is_read_back_in_both_spellings(base: int, prefix: int) -> None:
    network = IPv4Network((base, prefix), strict=False)
    assert parse_network(str(network)) == network
    assert parse_network(f"::ffff:{network.network_address}/{96 + prefix}") == network


@pytest.mark.parametrize("host", ["127.0.0.1", "127.9.9.9", "::1", "::ffff:127.0.0.1", "localhost", "LOCALHOST."])
def test_a_host_that_can_only_be_this_machine(host: str) -> None:
    assert is_loopback(host)


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "10.0.0.1", "::ffff:10.0.0.1", "localhost.example.com", "mail"])
def test_a_host_that_may_be_another_machine(host: str) -> None:
    assert not is_loopback(host)


@pytest.mark.parametrize(
    "host", ["a", "mail.example.com", "mail.example.com.", "_mta.example.com", "xn--a.example", "::1"]
)
def test_a_host_name(host: str) -> None:
    assert is_host(host)


@pytest.mark.parametrize(
    "host", ["", ".", "a..b", "-a.example", "a b", "1.2.3", "999.1.1.1", "exämple.com", "a" * 64, "[::1]"]
)
def test_no_host_name(host: str) -> None:
    assert not is_host(host)


def test_a_message_names_the_variable_and_not_its_value() -> None:
    assert shown(Expanded("a-secret", {"TOKEN": "secret"})) == "the value of ${TOKEN}"
