"""Acceptance: a submission is read, checked, routed, prepared and submitted to its destination."""

from __future__ import annotations

import asyncio
import errno
import os
import threading
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from relay.clock import Clock
from relay.config.load import load
from relay.config.model import Config
from relay.intake.accept import Acceptance, AcceptanceServices, ConfigState
from relay.intake.admission import Admission
from relay.intake.draft import Draft
from relay.intake.idempotency import Idempotency
from relay.intake.spool import IN_MEMORY_BYTES, Body, Large, SpoolFailed
from relay.intake.types import Refused, Submission
from relay.mail.envelope import DeliverBy, Envelope, Recipient
from relay.mail.message import Message
from relay.observe.maillog import MailLog
from relay.observe.metrics import Metrics
from relay.observe.recent import Recent
from relay.policy.check import FULL, UNWRITABLE
from relay.policy.limiter import Limiter
from relay.policy.suppression import Change, Entry, Suppressions, SuppressionSet, hash_of, key_of
from relay.store.base import StoreError, StoreFull
from relay.store.model import KnownRequest, NewMessage

CONFIG = """\
listen: {address: 127.0.0.1:2525}
hostname: relay.test
queue: {min_free: 1B}
upstreams: {a: {host: 127.0.0.1, tls: none}, b: {host: 127.0.0.1, tls: none}}
lanes:
  otp: {upstreams: [a, b], expires: 10m, supersede: true}
  bulk: {upstreams: b, expires: 2d}
default_lane: bulk
rules:
  - {name: codes, match: {sender: "codes@x.test"}, lane: otp}
  - {name: quick, match: {sender: "quick@x.test"}, lane: otp, expires: 1m}
"""
LETTER = b"From: app@x.test\r\nTo: b@y.test\r\nSubject: Your code is 123456\r\nX-Relay-Tag: t\r\n\r\nhello\r\n"


@dataclass
class Target:
    """A `Destination` that keeps each message. `before` runs first, and may raise."""

    before: Callable[[], Awaitable[None]] | None = None
    submitted: list[tuple[NewMessage, float]] = field(default_factory=list)
    spooled: list[tuple[Draft, Large]] = field(default_factory=list)

    async def submit(self, message: NewMessage, final_dot: float, others: Sequence[NewMessage] = ()) -> None:
        if self.before is not None:
            await self.before()
        self.submitted += [(one, final_dot) for one in (message, *others)]

    async def submit_spooled(self, draft: Draft, content: Large) -> NewMessage:
        self.spooled.append((draft, content))
        message, pieces = draft.from_file(content)
        others = [(one, b"".join(some)) for one, some in (each.from_file(content) for each in draft.of_others())]
        completed = [one._replace(content=whole) for one, whole in others]
        await self.submit(message._replace(content=b"".join(pieces)), 0.0, completed)
        return message


@dataclass
class Relay:
    """An acceptance, and all that is around it."""

    config: Config
    target: Target = field(default_factory=Target)
    waiting: tuple[int, int] = (0, 0)
    threads: list[int] = field(default_factory=list)
    suppressions: Suppressions = field(default_factory=Suppressions)

    def __post_init__(self) -> None:
        self.clock, self.metrics = Clock(), Metrics()
        self.log = MailLog(self.metrics, Recent(), clock=self.clock.now)
        self.admission = Admission(Path("/tmp/relay.db"), lambda: self.config.queue, lambda: self.waiting)
        services = AcceptanceServices(
            self.target,
            self.clock,
            self.log,
            self.admission,
            self.selectors,
            Limiter(self.log, lambda: self.suppressions.key),
            Idempotency(self, lambda: self.suppressions.key),
            self.suppressions,
        )
        self.accept = Acceptance(ConfigState.of(self.config), services)

    async def find(self, key: bytes, since: float) -> KnownRequest | None:
        """`KnownRequests`: what was submitted here."""
        kept = [one for one, _ in self.target.submitted if one.accepted_at >= since]
        known = [one for one in kept if one.idempotency is not None and one.idempotency.key == key]
        found = [KnownRequest(one.idempotency.request, one.id) for one in known if one.idempotency is not None]
        return found[-1] if found else None

    def selectors(self, _: Message) -> tuple[str, ...]:
        self.threads.append(threading.get_ident())
        return ("s1",)

    def submission(
        self, content: bytes | Large = LETTER, *recipients: str, sender: str = "codes@x.test", **envelope: Any
    ) -> Submission:
        return Submission(
            envelope=Envelope(sender, tuple(map(Recipient, recipients or ("b@y.test",))), **envelope),
            content=content,
            client="192.0.2.1",
            helo="app.test",
            protocol="ESMTP",
            listener=self.config.listen[0],
            receive_s=0.25,
            final_dot=time.monotonic(),
            user=None,
        )

    async def submitted(self, *arguments: Any, **named: Any) -> NewMessage:
        """The message that a submission became."""
        await self.accept(self.submission(*arguments, **named))
        return self.target.submitted[-1][0]


def configured(folder: Path, text: str = CONFIG) -> Config:
    path = folder / "relay.yaml"
    path.write_text(text)
    return load(path, {}).config


@pytest.fixture
def relay(tmp_path: Path) -> Relay:
    return Relay(configured(tmp_path))


# A message that is accepted.


async def test_a_message_is_routed_and_prepared_before_it_is_submitted(relay: Relay) -> None:
    submission = relay.submission()
    receipt = await relay.accept(submission)
    ((message, final_dot),) = relay.target.submitted
    assert (receipt.id, receipt.express) == (message.id, True)
    assert final_dot == submission.final_dot
    assert (message.lane, message.rule, message.client, message.signed) == ("otp", "codes", "192.0.2.1", ("s1",))
    assert (message.envelope, message.providers) == (submission.envelope, ("y.test",))
    assert "123456" not in message.subject
    assert message.content.startswith(b"Received: from app.test")
    assert b"\r\nDate: " in message.content
    assert message.message_id == f"<{message.id.lower()}@relay.test>"
    assert message.message_id.encode() in message.content
    assert b"X-Relay-Tag" not in message.content
    assert message.content.endswith(b"\r\n\r\nhello\r\n")
    assert message.timings_ms["receive"] == 250.0
    assert abs(message.accepted_at - relay.clock.epoch(final_dot)) < 0.1


async def test_mail_that_no_rule_knows_is_of_the_default_lane_and_not_express(relay: Relay) -> None:
    receipt = await relay.accept(relay.submission(sender="news@x.test"))
    assert not receipt.express
    assert (relay.target.submitted[0][0].lane, relay.target.submitted[0][0].rule) == ("bulk", None)


@pytest.mark.parametrize(
    ("sender", "deliver_by", "life_s"),
    [
        ("news@x.test", None, 172_800),
        ("codes@x.test", None, 600),
        ("quick@x.test", None, 60),
        ("codes@x.test", DeliverBy(30, "R"), 30),
        ("quick@x.test", DeliverBy(90, "R"), 60),
        ("codes@x.test", DeliverBy(30, "N"), 600),
    ],
)
async def test_the_shortest_of_lane_rule_and_deliverby_is_the_life_of_a_message(
    relay: Relay, sender: str, deliver_by: DeliverBy | None, life_s: float
) -> None:
    message = await relay.submitted(sender=sender, deliver_by=deliver_by)
    assert message.expires_at - message.accepted_at == pytest.approx(life_s)


async def test_messages_of_one_rule_to_one_recipient_have_one_supersede_key(relay: Relay) -> None:
    first = (await relay.submitted()).supersede_key
    assert first is not None
    assert (await relay.submitted(LETTER, "B@Y.TEST")).supersede_key == first
    assert (await relay.submitted(LETTER, "c@y.test")).supersede_key not in (None, first)
    assert (await relay.submitted(sender="quick@x.test")).supersede_key not in (None, first)


async def test_messages_to_several_recipients_and_bulk_mail_never_supersede(relay: Relay) -> None:
    assert (await relay.submitted(LETTER, "b@y.test", "c@y.test")).supersede_key is None
    assert (await relay.submitted(sender="news@x.test")).supersede_key is None


async def test_a_large_header_section_is_read_on_another_thread(relay: Relay) -> None:
    await relay.submitted(LETTER)
    await relay.submitted((b"X-Long: " + b"y" * 900 + b"\r\n") * 20 + LETTER)
    here, elsewhere = relay.threads
    assert here == threading.get_ident() != elsewhere


async def test_a_large_content_stays_in_its_file_and_only_its_head_is_read(relay: Relay, tmp_path: Path) -> None:
    whole = LETTER + b"line\r\n" * (IN_MEMORY_BYTES // 5)
    body = Body(tmp_path)
    body.write(whole)
    content = body.content()
    assert isinstance(content, Large)
    receipt = await relay.accept(relay.submission(content))
    ((draft, passed_on),) = relay.target.spooled
    ((message, _),) = relay.target.submitted
    assert passed_on is content
    assert draft.new.content == b""
    assert (draft.new.id, draft.new.lane) == (receipt.id, "otp")
    assert message.content.endswith(whole[-IN_MEMORY_BYTES:])
    body.close()


async def test_a_message_keeps_the_configuration_that_it_began_with(relay: Relay, tmp_path: Path) -> None:
    async def reload() -> None:
        text = CONFIG.replace("otp", "codes")
        relay.accept.state = ConfigState.of(configured(tmp_path, text))

    relay.target.before = reload
    assert (await relay.accept(relay.submission())).express
    assert (await relay.submitted()).lane == "codes"
    assert [message.lane for message, _ in relay.target.submitted] == ["otp", "codes"]


async def test_a_log_that_fails_changes_nothing_for_a_message_that_is_stored(
    relay: Relay, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise RuntimeError

    monkeypatch.setattr(relay.log, "accepted", fail)
    assert (await relay.accept(relay.submission())).id == relay.target.submitted[0][0].id


# A message that is refused.


@pytest.mark.parametrize(
    ("error", "reply", "later"),
    [
        (StoreFull("no space"), FULL, FULL),
        (StoreError("I/O error"), UNWRITABLE, UNWRITABLE),
        (SpoolFailed(errno.ENOSPC, "full"), FULL, None),
        (SpoolFailed(errno.EIO, "damaged"), UNWRITABLE, None),
    ],
    ids=["store full", "store broken", "spool full", "spool damaged"],
)
async def test_a_store_that_failed_refuses_messages_that_begin_and_tries_those_that_have_come_in(
    relay: Relay, error: Exception, reply: object, later: object
) -> None:
    async def fail() -> None:
        raise error

    relay.target.before = fail
    with pytest.raises(Refused) as refused:
        await relay.accept(relay.submission())
    assert (refused.value.reply, refused.value.reason) == (reply, "store")
    assert relay.admission.refusal() == later
    # A message whose content is there already is tried, and shows that the store works again.
    relay.target.before = None
    await relay.accept(relay.submission())
    assert len(relay.target.submitted) == 1
    assert relay.admission.refusal() is None


async def test_a_message_that_is_stored_ends_the_time_in_which_the_store_refuses_mail(relay: Relay) -> None:
    async def other_fails() -> None:
        relay.admission.store_failed(full=False)

    relay.target.before = other_fails
    await relay.accept(relay.submission())
    assert relay.admission.refusal() is None


async def test_a_queue_that_filled_while_the_content_came_in_takes_the_message(relay: Relay) -> None:
    relay.config = relay.config.model_copy(update={"queue": relay.config.queue.model_copy(update={"max_messages": 5})})
    relay.waiting = (5, 0)
    await relay.accept(relay.submission())
    assert len(relay.target.submitted) == 1
    assert relay.admission.refusal() == FULL


async def test_a_content_that_has_no_room_on_the_disk_is_refused_and_holds_up_no_other(
    relay: Relay, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "statvfs", lambda _: SimpleNamespace(f_bavail=100, f_frsize=1))
    with pytest.raises(Refused) as refused:
        await relay.accept(relay.submission(LETTER + b"x" * 100 + b"\r\n"))
    assert (refused.value.reply, refused.value.reason) == (FULL, "busy")
    assert relay.admission.capacity().store_failure is None
    assert not relay.target.submitted


async def test_a_content_that_is_no_message_is_refused_for_good(relay: Relay) -> None:
    with pytest.raises(Refused) as refused:
        await relay.accept(relay.submission(b"Subject: \0\r\n\r\n"))
    assert (refused.value.reply.code, refused.value.reason) == (554, "policy")


async def test_what_goes_wrong_beside_that_is_not_hidden(relay: Relay) -> None:
    async def fail() -> None:
        raise asyncio.InvalidStateError

    relay.target.before = fail
    with pytest.raises(asyncio.InvalidStateError):
        await relay.accept(relay.submission())


# Suppressed recipients.


def suppress(relay: Relay, *addresses: str) -> None:
    key = b"k" * 32
    relay.suppressions.begin(key, SuppressionSet())
    entries = [Entry(key_of(hash_of(one, key), "manual"), 1_700_000_000, None, "left us") for one in addresses]
    relay.suppressions.apply(Change(added=entries))


@pytest.mark.parametrize("sender", ["codes@x.test", "news@x.test", ""])
@pytest.mark.parametrize("is_large", [False, True])
async def test_a_message_to_suppressed_recipients_only_is_refused(
    relay: Relay, tmp_path: Path, sender: str, is_large: bool
) -> None:
    suppress(relay, "b@y.test", "c@y.test")
    body = Body(tmp_path)
    body.write(LETTER + b"line\r\n" * (IN_MEMORY_BYTES // 5 if is_large else 1))
    content = body.content()
    with pytest.raises(Refused) as refused:
        await relay.accept(relay.submission(content, "B@Y.test", "c@y.test", sender=sender))
    assert (str(refused.value.reply), refused.value.reason) == ("550 5.7.1 suppressed: left us", "suppressed")
    assert relay.target.submitted == []
    await relay.accept(relay.submission(content, "B@Y.test", "d@y.test", sender=sender))
    assert len(relay.target.submitted) == 1
    body.close()
