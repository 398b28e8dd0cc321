"""TLS and AUTH: what is offered when, what is dropped, which logins are right and what wrong ones cost."""

from __future__ import annotations

import asyncio
import logging
import os
import ssl
import threading
from base64 import b64encode
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from relay.config.model import Listener
from relay.intake import allowance as allowance_module
from relay.intake import session as session_module
from relay.intake import users as users_module
from relay.intake.listener import server_context
from relay.intake.logins import Logins
from relay.intake.peer import peer_at
from relay.intake.types import CannotListen
from relay.intake.users import Users, UsersError, hash_password, read_users, valid_name
from tests.intake.harness import Client, Service, listener, service
from tests.support.tls import Certificates

PASSWORD = "corr3ct horse:b4ttery"


def b64(text: str) -> str:
    return b64encode(text.encode()).decode()


@pytest.fixture
def starttls(certificates: Certificates) -> dict[str, object]:
    return {"tls": "starttls", "cert_file": certificates.good.cert_file, "key_file": certificates.good.key_file}


@pytest.fixture(scope="module")
def users_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("users") / "users"
    path.write_text(f"# who may\n\napp:{hash_password(PASSWORD.encode())}\n")
    return path


@pytest.fixture
async def guarded(users_file: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Service]:
    monkeypatch.setattr(session_module, "AUTH_DELAY_S", 0.01)
    async with service(listener(auth="required", users_file=users_file)) as running:
        yield running


def offered(reply: str) -> set[str]:
    return {line[4:] for line in reply.split("\n")[1:]}


async def helped(client: Client) -> set[str]:
    """The commands that HELP names."""
    return set((await client.ask("HELP")).removeprefix("214 2.0.0 Commands: ").split(" "))


async def test_help_names_starttls_and_auth_where_ehlo_offers_them(
    certificates: Certificates, starttls: dict[str, object], users_file: Path
) -> None:
    tried = [
        (listener(), False, set()),
        (listener(auth="any"), False, {"AUTH"}),
        (listener(auth="required", users_file=users_file), False, {"AUTH"}),
        (listener(**starttls), False, {"STARTTLS"}),
        (listener(auth="any", **starttls), False, {"STARTTLS", "AUTH"}),
        (listener(auth="any", **starttls), True, {"AUTH"}),
    ]
    for where, secured, expected in tried:
        async with service(where) as running, running.connect() as client:
            await client.reply()
            if secured:
                await client.run("EHLO me.test", "STARTTLS")
                await client.start_tls(certificates.client_context())
            extensions = {line.split(" ")[0] for line in offered(await client.ask("EHLO me.test"))}
            assert await helped(client) & {"STARTTLS", "AUTH"} == extensions & {"STARTTLS", "AUTH"} == expected


# TLS.


async def test_starttls_begins_anew_inside_tls(certificates: Certificates, starttls: dict[str, object]) -> None:
    async with service(listener(**starttls, auth="any")) as relay, relay.session() as client:
        assert "STARTTLS" in offered(await client.ask("EHLO me"))
        await client.run("MAIL FROM:<a@x.test>", "RCPT TO:<b@x.test>")
        assert (await client.ask("STARTTLS")).startswith("220 2.0.0")
        await client.start_tls(certificates.client_context())
        assert (await client.ask("RCPT TO:<b@x.test>")).startswith("503 5.5.1 Send EHLO")
        assert "STARTTLS" not in offered(await client.ask("EHLO me"))
        assert (await client.ask("STARTTLS")).startswith("503 5.5.1")
        await client.run("MAIL FROM:<a@x.test>", "RCPT TO:<b@x.test>", "DATA", "big " * 50_000 + "\r\n.")
        await client.run(f"AUTH PLAIN {b64(chr(0) + 'u' + chr(0) + 'p')}")
        await client.run("MAIL FROM:<a@x.test>", "RCPT TO:<b@x.test>", "DATA", ".", "QUIT")
        await relay.quiet()
    assert [each.protocol for each in relay.recorder.taken] == ["ESMTPS", "ESMTPSA"]
    assert relay.recorder.taken[0].content == b"big " * 50_000 + b"\r\n"


async def test_what_is_injected_behind_starttls_is_dropped(
    certificates: Certificates, starttls: dict[str, object]
) -> None:
    async with service(listener(**starttls)) as relay, relay.session() as client:
        await client.send(b"STARTTLS\r\nEHLO evil\r\nMAIL FROM:<evil@x.test>\r\nRCPT TO:<evil@x.test>\r\n")
        assert (await client.reply()).startswith("220 ")
        await client.start_tls(certificates.client_context())
        assert (await client.ask("EHLO me")).startswith("250-relay.test")
        assert (await client.ask("DATA")).startswith("503 5.5.1 Send MAIL")


async def test_implicit_tls_greets_inside_it(certificates: Certificates, starttls: dict[str, object]) -> None:
    door = listener(**{**starttls, "tls": "implicit"})
    async with service(door) as relay, relay.connect(certificates.client_context(), host="localhost") as client:
        await client.hello()
        assert "STARTTLS" not in offered(await client.ask("EHLO me"))
        await client.run("MAIL FROM:<a@x.test>", "RCPT TO:<b@x.test>", "DATA")
        await client.send(b".\r\nQUIT\r\n")
        assert await client.everything() == b"250 2.0.0 queued as id-1\r\n221 2.0.0 Bye\r\n"


@pytest.mark.parametrize("tls", ["starttls", "implicit"])
async def test_a_handshake_that_fails_ends_the_session_quietly(
    starttls: dict[str, object], tls: str, caplog: pytest.LogCaptureFixture
) -> None:
    async with service(listener(**{**starttls, "tls": tls})) as relay, relay.connect() as client:
        if tls == "starttls":
            await client.hello()
            await client.ask("STARTTLS")
        await client.send(b"EHLO me\r\nthis is no handshake\r\n")
        await client.everything()
        await relay.quiet()
        assert relay.heard.reasons == ["tls"]
    assert [record for record in caplog.records if record.levelno > logging.DEBUG] == []


@pytest.mark.parametrize("tls", ["starttls", "implicit"])
async def test_a_handshake_that_never_comes_has_a_deadline(starttls: dict[str, object], tls: str) -> None:
    door = listener(**{**starttls, "tls": tls})
    async with service(door, limits={"command_timeout_s": 0.2}) as relay, relay.connect() as client:
        if tls == "starttls":
            await client.hello()
            await client.ask("STARTTLS")
        await client.everything()
        await relay.quiet()
        assert relay.heard.reasons == ["tls"]


async def test_a_client_gone_within_the_handshake_leaves_nothing(starttls: dict[str, object]) -> None:
    async with service(listener(**starttls)) as relay:
        async with relay.session() as client:
            await client.ask("STARTTLS")
        await relay.quiet()


def test_tls_older_than_1_2_is_not_spoken(certificates: Certificates) -> None:
    context = server_context(certificates.good.cert_file, certificates.good.key_file)
    assert context.minimum_version == ssl.TLSVersion.TLSv1_2


async def test_a_reload_brings_the_new_certificate(certificates: Certificates, starttls: dict[str, object]) -> None:
    async with service(listener(**starttls)) as relay:
        other = certificates.self_signed
        await relay.server.reload([listener(**{**starttls, "cert_file": other.cert_file, "key_file": other.key_file})])
        context = certificates.client_context()
        context.load_verify_locations(other.cert_file)
        async with relay.session() as client:
            await client.ask("STARTTLS")
            await client.start_tls(context)
            shown = client.writer.get_extra_info("peercert")
            assert ("commonName", "test self_signed") in [pair for part in shown["subject"] for pair in part]


@pytest.mark.parametrize("broken", ["cert_file", "key_file"])
async def test_a_broken_certificate_is_named(starttls: dict[str, object], broken: str, tmp_path: Path) -> None:
    (tmp_path / "broken.pem").write_text("-----BEGIN CERTIFICATE-----\nrubbish\n")
    with pytest.raises(CannotListen, match=r"broken\.pem"):
        async with service(listener(**{**starttls, broken: tmp_path / "broken.pem"})):
            pass


# AUTH.


@pytest.mark.parametrize(
    "exchange",
    [
        [f"AUTH PLAIN {b64(chr(0) + 'u' + chr(0) + 'p')}"],
        [f"auth plain {b64('authz' + chr(0) + 'u' + chr(0) + 'p')}"],
        ["AUTH PLAIN", b64("\0u\0p")],
        ["AUTH LOGIN", b64("u"), b64("p")],
        ["Auth Login " + b64("u"), b64("p")],
        ["AUTH LOGIN", "", ""],
    ],
)
async def test_any_takes_every_credential(exchange: list[str]) -> None:
    async with service(listener(auth="any")) as relay, relay.session() as client:
        assert "AUTH PLAIN LOGIN" in offered(await client.ask("EHLO me"))
        replies = await client.run(*exchange)
        assert [reply[:3] for reply in replies] == ["334"] * (len(exchange) - 1) + ["235"]
        await client.run("MAIL FROM:<a@x.test>", "RCPT TO:<b@x.test>", "DATA", ".")
        (taken,) = relay.recorder.taken
        assert (taken.protocol, taken.user) == ("ESMTPA", None)


async def test_any_needs_none() -> None:
    async with service(listener(auth="any")) as relay, relay.session() as client:
        assert (await client.ask("MAIL FROM:<a@x.test>")).startswith("250")


@pytest.mark.parametrize(
    ("exchange", "replies"),
    [
        (["AUTH"], ["501 5.5.4"]),
        (["AUTH PLAIN a b"], ["501 5.5.4"]),
        (["AUTH CRAM-MD5"], ["504 5.5.4"]),
        (["AUTH PLAIN !!"], ["501 5.5.2"]),
        (["AUTH PLAIN " + b64("no parts")], ["501 5.5.2"]),
        (["AUTH PLAIN", "*"], ["334", "501 5.7.0"]),
        (["AUTH LOGIN", "*"], ["334", "501 5.7.0"]),
        (["AUTH LOGIN", b64("u"), "*"], ["334", "334", "501 5.7.0"]),
        (["AUTH LOGIN", "!!"], ["334", "501 5.5.2"]),
        (["AUTH PLAIN", "x" * 12_290], ["334", "500 5.5.6"]),
        (["MAIL FROM:<a@x.test>", "AUTH PLAIN"], ["250", "503 5.5.1"]),
        (["HELO me", "AUTH PLAIN"], ["250", "503 5.5.1"]),
        (["AUTH PLAIN " + b64("\0u\0p"), "AUTH PLAIN"], ["235", "503 5.5.1"]),
    ],
)
async def test_an_exchange_gone_wrong_is_refused_and_the_session_goes_on(
    exchange: list[str], replies: list[str]
) -> None:
    async with service(listener(auth="any")) as relay, relay.session() as client:
        for line, beginning in zip(exchange, replies, strict=True):
            assert (await client.ask(line)).startswith(beginning)
        assert (await client.ask("NOOP")).startswith("250")


async def test_required_lets_the_right_password_in(guarded: Service) -> None:
    async with guarded.session() as client:
        assert "AUTH PLAIN LOGIN" in offered(await client.ask("EHLO me"))
        assert (await client.ask("MAIL FROM:<a@x.test>")).startswith("530 5.7.0 Authentication")
        assert (await client.ask("RCPT TO:<a@x.test>")).startswith("530 5.7.0")
        assert (await client.ask("DATA")).startswith("530 5.7.0")
        assert (await client.ask(f"AUTH PLAIN {b64(chr(0) + 'app' + chr(0) + PASSWORD)}")).startswith("235 2.7.0")
        await client.run("MAIL FROM:<a@x.test>", "RCPT TO:<b@x.test>", "DATA", ".")
    (taken,) = guarded.recorder.taken
    assert (taken.user, taken.protocol) == ("app", "ESMTPA")


@pytest.mark.parametrize(("user", "password"), [("app", "wrong"), ("nobody", PASSWORD), ("", ""), ("app", "")])
async def test_required_lets_no_other_password_in(guarded: Service, user: str, password: str) -> None:
    async with guarded.session() as client:
        assert (await client.ask(f"AUTH PLAIN {b64(chr(0) + user + chr(0) + password)}")).startswith("535 5.7.8")
        assert (await client.ask("MAIL FROM:<a@x.test>")).startswith("530 5.7.0")
        assert guarded.heard.reasons == ["auth", "auth"]


async def test_guessing_ends_after_three_tries(guarded: Service) -> None:
    async with guarded.session() as client:
        for _ in range(3):
            assert (await client.ask(f"AUTH PLAIN {b64(chr(0) + 'app' + chr(0) + 'guess')}")).startswith("535 5.7.8")
        assert (await client.everything()).startswith(b"421 4.7.0 ")


async def test_required_wants_tls_first_off_this_machine(
    users_file: Path, starttls: dict[str, object], certificates: Certificates
) -> None:
    door = listener(**starttls, auth="required", users_file=users_file, proxy_protocol=("127.0.0.0/8",))
    async with service(door) as relay, relay.connect() as client:
        client.writer.write(b"PROXY TCP4 192.0.2.7 127.0.0.1 5 25\r\n")
        await client.hello()
        assert "AUTH PLAIN LOGIN" not in offered(await client.ask("EHLO me"))
        assert "AUTH" not in await helped(client)
        assert (await client.ask("MAIL FROM:<a@x.test>")).startswith("530 5.7.0 Send STARTTLS")
        assert (await client.ask(f"AUTH PLAIN {b64('x')}")).startswith("538 5.7.11")
        await client.ask("STARTTLS")
        await client.start_tls(certificates.client_context())
        assert "AUTH PLAIN LOGIN" in offered(await client.ask("EHLO me"))
        assert (await client.ask(f"AUTH PLAIN {b64(chr(0) + 'app' + chr(0) + PASSWORD)}")).startswith("235 2.7.0")


def test_a_proxied_client_is_never_local() -> None:
    assert peer_at("127.0.0.1").local
    assert not peer_at("127.0.0.1", proxied=True).local


async def test_no_credential_reaches_a_log(guarded: Service, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    async with guarded.session() as client:
        await client.run("AUTH LOGIN", b64("app"), b64(PASSWORD + "!"))
        await client.run("AUTH LOGIN", b64("app"), "not base64 " + PASSWORD)
        await client.run("AUTH PLAIN " + b64("\0app\0" + PASSWORD))
    for secret in (PASSWORD, b64(PASSWORD + "!"), b64("\0app\0" + PASSWORD), b64("app")):
        assert secret not in caplog.text


async def test_many_logins_at_once_all_succeed(guarded: Service) -> None:
    async def log_in(client: Client) -> str:
        return await client.ask(f"AUTH PLAIN {b64(chr(0) + 'app' + chr(0) + PASSWORD)}")

    async with guarded.session() as one, guarded.session() as two, guarded.session() as three:
        replies = await asyncio.gather(log_in(one), log_in(two), log_in(three))
    assert [reply[:3] for reply in replies] == ["235"] * 3


# The users file.


async def test_a_hash_made_here_is_verified_here(users_file: Path) -> None:
    users = Users.load(users_file)
    assert await users.verify("app", PASSWORD.encode())
    assert not await users.verify("app", PASSWORD.encode() + b" ")
    assert not await users.verify("App", PASSWORD.encode())


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("app:secret\n", "1: expected name:"),
        ("# fine\napp\n", "2: expected name:"),
        (":$argon2id$\n", "1: expected name:"),
        ("a b:{hash}\n", "1: expected name:"),
        ("app:{hash}\napp:{hash}\n", "2: this user is there twice"),
    ],
)
def test_a_users_file_with_a_mistake_is_refused_by_line_and_without_quoting_it(
    text: str, complaint: str, tmp_path: Path
) -> None:
    path = tmp_path / "users"
    path.write_text(text.format(hash=hash_password(b"x")))
    with pytest.raises(UsersError) as refused:
        read_users(path)
    assert str(refused.value).startswith(f"{path}:{complaint}")
    assert "secret" not in str(refused.value)
    assert "$argon2id$v" not in str(refused.value)


async def test_a_missing_users_file_refuses_to_start(tmp_path: Path) -> None:
    with pytest.raises(CannotListen, match=r"users: No such file"):
        async with service(listener(auth="required", users_file=tmp_path / "users")):
            pass


@pytest.mark.parametrize("lacking", [{"tls": "starttls"}, {"auth": "required"}])
async def test_a_listener_without_its_files_refuses_to_start(lacking: dict[str, str]) -> None:
    with pytest.raises(CannotListen, match="needs"):
        async with service(Listener(address=listener().address, **lacking)):  # type: ignore[arg-type]
            pass


@pytest.mark.parametrize(("name", "valid"), [("app", True), ("a@b", True), ("", False), ("a:b", False), ("#a", False)])
def test_a_user_s_name_fits_the_file(name: str, valid: bool) -> None:
    assert valid_name(name) is valid


# Guesses and remembered logins.


def login(password: str, user: str = "app") -> str:
    return "AUTH PLAIN " + b64(f"\0{user}\0{password}")


@pytest.fixture
def verified(monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    """The passwords that were looked at, in their order."""
    looked_at: list[bytes] = []
    matches = users_module.password_matches

    def counted(password: bytes, phc: str) -> bool:
        looked_at.append(password)
        return matches(password, phc)

    monkeypatch.setattr(users_module, "password_matches", counted)
    return looked_at


async def test_a_login_is_verified_once_however_many_connections_it_comes_by(
    guarded: Service, verified: list[bytes], users_file: Path
) -> None:
    for _ in range(5):
        async with guarded.session() as client:
            assert (await client.ask(login(PASSWORD))).startswith("235")
    async with guarded.session() as client:
        assert (await client.ask(login("wrong"))).startswith("535")
        assert (await client.ask(login(PASSWORD))).startswith("235")
    assert verified == [PASSWORD.encode(), b"wrong"]
    await guarded.server.reload([listener(auth="required", users_file=users_file)])
    async with guarded.session() as client:
        assert (await client.ask(login(PASSWORD))).startswith("235")
    assert len(verified) == 3


async def test_a_login_is_remembered_for_minutes_without_its_password(users_file: Path) -> None:
    now = [0.0]
    users = Users(read_users(users_file), lambda: now[0])
    assert not users.remembers("app", PASSWORD.encode())
    assert await users.verify("app", PASSWORD.encode())
    assert users.remembers("app", PASSWORD.encode())
    for name, password in (("app", "wrong"), ("ap", "p" + PASSWORD), ("", ""), ("app", "")):
        assert not users.remembers(name, password.encode())
    held = repr(vars(users)).encode()
    assert PASSWORD.encode() not in held
    now[0] = 601.0
    assert not users.remembers("app", PASSWORD.encode())


async def test_only_so_many_logins_are_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(users_module, "password_matches", lambda *_: True)
    users = Users({f"u{at}": "" for at in range(1_200)})
    for at in range(1_200):
        assert await users.verify(f"u{at}", b"x")
    assert sum(users.remembers(f"u{at}", b"x") for at in range(1_200)) == 1_000


async def test_guesses_count_over_connections_until_they_are_no_longer_looked_at(
    guarded: Service, verified: list[bytes]
) -> None:
    async def guess() -> list[str]:
        async with guarded.session() as client:
            return [(await client.ask(login("guess")))[:3] for _ in range(2)]

    replies = [code for codes in await asyncio.gather(*(guess() for _ in range(10))) for code in codes]
    assert sorted(replies) == ["454"] * 10 + ["535"] * 10
    assert len(verified) == 10


async def test_a_client_that_guesses_delays_neither_another_client_nor_its_own_right_logins(
    users_file: Path, starttls: dict[str, object], certificates: Certificates, monkeypatch: pytest.MonkeyPatch,
    verified: list[bytes],
) -> None:  # fmt: skip
    monkeypatch.setattr(session_module, "AUTH_DELAY_S", 0.01)
    door = listener(
        **{**starttls, "tls": "implicit"}, auth="required", users_file=users_file, proxy_protocol=("127.0.0.0/8",)
    )
    async with service(door) as relay:

        async def says(source: str, password: str) -> str:
            async with asyncio.timeout(20):
                reader, writer = await asyncio.open_connection("127.0.0.1", relay.port)
                writer.write(f"PROXY TCP4 {source} 127.0.0.1 5 25\r\n".encode())
                await writer.start_tls(certificates.client_context(), server_hostname="localhost")
                client = await Client(reader, writer).hello()
                reply = await client.ask(login(password))
                writer.close()
                return reply[:3]

        assert await says("192.0.2.7", PASSWORD) == "235"
        guessing = [asyncio.create_task(says("192.0.2.7", "guess")) for _ in range(40)]
        while not any(task.done() for task in guessing):
            await asyncio.sleep(0.001)
        assert await says("192.0.2.8", PASSWORD + "!") == "535"
        # It was looked at behind one guess or two, not behind forty.
        assert verified.index((PASSWORD + "!").encode()) <= 12
        await asyncio.gather(*guessing)
        assert await says("192.0.2.7", "guess") == "454"
        assert await says("192.0.2.7", PASSWORD) == "235"


async def test_guesses_are_forgiven_by_and_by() -> None:
    now = [0.0]
    logins = Logins(lambda: now[0])
    users, peer = Users({"app": hash_password(b"right")}), peer_at("2001:db8::1")
    for at in range(12):
        await logins.verify(users, peer_at(f"2001:db8::{at}"), f"name{at}", b"guess")
    assert await logins.verify(users, peer, "app", b"right") == "too many"
    assert await logins.verify(users, peer_at("2001:db8:0:1::1"), "app", b"right") == "right"
    now[0] = 31.0
    assert await logins.verify(users, peer, "app", b"guess") == "wrong"
    assert await logins.verify(users, peer, "app", b"guess") == "too many"


async def test_apps_on_this_machine_answer_for_their_own_user_only() -> None:
    logins, users = Logins(), Users({"app": hash_password(b"right")})
    for _ in range(12):
        await logins.verify(users, peer_at("127.0.0.1"), "other", b"wrong")
    assert await logins.verify(users, peer_at("127.0.0.1"), "other", b"wrong") == "too many"
    assert await logins.verify(users, peer_at("127.0.0.1"), "app", b"right") == "right"


async def test_logins_are_verified_at_a_low_priority(users_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = os.getpriority(os.PRIO_PROCESS, 0)
    priorities: list[int] = []

    def matches(_: bytes, __: str) -> bool:
        priorities.append(os.getpriority(os.PRIO_PROCESS, threading.get_native_id()))
        return True

    monkeypatch.setattr(users_module, "password_matches", matches)
    await Users.load(users_file).verify("app", b"")
    assert priorities == [max(10, before)]
    assert os.getpriority(os.PRIO_PROCESS, 0) == before


@pytest.mark.parametrize("talk", ["silent", "chatty", "in the middle"])
async def test_where_a_login_is_required_it_must_come_soon(
    guarded: Service, monkeypatch: pytest.MonkeyPatch, talk: str
) -> None:
    monkeypatch.setattr(allowance_module, "LOGIN_WITHIN_S", 0.5)
    async with guarded.connect() as client:
        await client.hello()
        if talk == "in the middle":
            await client.ask("AUTH LOGIN")
        while talk == "chatty" and (await client.ask("NOOP")).startswith("250"):
            await asyncio.sleep(0.02)
        assert talk == "chatty" or (await client.everything()).startswith(b"421 4.4.2")
        await guarded.quiet()
    assert guarded.heard.reasons == ["timeout"]


async def test_a_client_that_has_logged_in_has_no_login_deadline(
    guarded: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with guarded.session() as client:
        assert (await client.ask(login(PASSWORD))).startswith("235")
        monkeypatch.setattr(allowance_module, "LOGIN_WITHIN_S", 0.0)
        assert (await client.ask("NOOP")).startswith("250")
        assert (await client.ask("MAIL FROM:<a@x.test>")).startswith("250")


@pytest.mark.parametrize("begun", [b"", b"\x16\x03\x01"])
async def test_the_time_until_a_login_has_the_handshake_in_it(
    users_file: Path, starttls: dict[str, object], monkeypatch: pytest.MonkeyPatch, begun: bytes
) -> None:
    monkeypatch.setattr(allowance_module, "LOGIN_WITHIN_S", 0.3)
    door = listener(**{**starttls, "tls": "implicit"}, auth="required", users_file=users_file)
    async with service(door) as relay, relay.connect() as client:
        await client.send(begun)
        await client.everything()
        await relay.quiet()
