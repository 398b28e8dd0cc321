"""Mails, calls and answers for the tests of Mailgun, SparkPost, Mandrill, Scaleway, Leadpush and Graph."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from relay.providers.api import Answer, Api, ApiMail, ApiRequest, Call, Credentials, Kind, Mailbox, Rebuilt, Verdict
from relay.providers.registry import provider_named
from relay.providers.webhook import Accepted
from tests.providers.signers import SIGNERS

ANN, BOB, CEM, DEE = "ann@example.org", "bob@example.org", "cem@example.net", "dee@example.net"
KEY = "key-0123456789-secret"
NOW = 1_772_366_405.0  # Sun, 01 Mar 2026 12:00:05 GMT
CONTENT = (
    b"From: Acme <otp@mg.example.com>\r\nTo: ann@example.org\r\nCc: Bob <BOB@example.org>\r\n"
    b"Subject: 482913 is your code\r\nMessage-ID: <1@otp.example.com>\r\n\r\n482913 \xc3\xa4 {{ name }}\r\n"
)


def raw_mail(
    recipients: Sequence[str] = (ANN, BOB),
    content: bytes = CONTENT,
    steering: Mapping[str, tuple[str, ...]] | None = None,
) -> ApiMail:
    """A mail for a raw API."""
    return ApiMail(
        relay_id="01JD8Z2W3X4Y5Z6A7B8C9DAEBF",
        sender="bounces@mg.example.com",
        recipients=tuple(recipients),
        author="otp@mg.example.com",
        steering=steering or {},
        content=content,
    )


def json_mail(recipients: Sequence[str] = (ANN,), **parts: Any) -> ApiMail:
    """A mail for a JSON API: to Ann, with a text, unless `parts` say something else."""
    rebuilt = Rebuilt(
        author=Mailbox("otp@example.com"),
        to=(Mailbox(ANN),),
        cc=(),
        reply_to=(),
        subject="482913 is your code",
        text="Your code is 482913.\n",
        html=None,
        attachments=(),
        headers=(),
    )
    return raw_mail(recipients)._replace(rebuilt=rebuilt._replace(**parts))


def call(username: str = "", prefix: str = "") -> Call:
    return Call(Credentials(key=KEY, username=username), "api.example.net", prefix, NOW, "idem-1")


def answer(status: int, body: Any = b"", headers: Mapping[str, str] | None = None) -> Answer:
    """`body`: bytes as they are, or a JSON value."""
    return Answer(status, headers or {}, body if isinstance(body, bytes) else json.dumps(body).encode())


def judged(api: Api, mail: ApiMail, response: Answer) -> Verdict:
    verdict = api.judge(response, mail, NOW)
    assert len(verdict.found) == len(mail.recipients)
    return verdict


def kinds(verdict: Verdict) -> list[Kind]:
    return [one.kind for one in verdict.found]


def json_body(request: ApiRequest) -> Any:
    """The body as strict JSON. AssertionError if an object has a key twice."""

    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        assert len({name for name, _ in pairs}) == len(pairs)
        return dict(pairs)

    return json.loads(request.body.decode("utf-8"), object_pairs_hook=once)


def hold_key(request: ApiRequest, *secrets: str, in_body: int = 0) -> None:
    """The key stands once: in a header field, or in the body."""
    fields = "\n".join(f"{name}: {value}" for name, value in request.headers)
    places = sum(fields.count(one) for one in secrets), sum(request.body.count(one.encode()) for one in secrets)
    assert places == ((0, 1) if in_body else (1, 0))
    assert not any(one in request.path for one in secrets)


def esp_id_in_reply(provider: str, text: str) -> str | None:
    """What the provider's events are matched with, out of the reply that the relay keeps."""
    found = provider_named(provider)
    assert found is not None
    assert found.esp_id is not None
    return found.esp_id(f"250 2.0.0 Ok: queued as {text}")


def esp_ids_of_events(provider: str, body: bytes) -> list[str | None]:
    """The ids in a webhook's request with that body."""
    found = provider_named(provider)
    assert found is not None
    assert found.webhook is not None
    verdict = found.webhook(*SIGNERS[provider](body, {}, NOW))
    assert isinstance(verdict, Accepted)
    return [event.esp_id for event in verdict.events]
