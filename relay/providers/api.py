"""An ESP's HTTP API as values: a request from a mail, a verdict from a response. Nothing here knows a socket or a
clock."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal, NamedTuple

from relay.providers.webhook import Field

Form = Literal["raw", "json"]
"""`raw`: the API takes the message's bytes; `json`: it takes the message's parts and builds another message"""


class Mailbox(NamedTuple):
    """An address with the name before it."""

    address: str
    name: str = ""


class Attachment(NamedTuple):
    """A file in a message."""

    filename: str
    content_type: str
    """as `application/pdf`, without parameters"""
    data: bytes
    """decoded"""


class Rebuilt(NamedTuple):
    """A message in the terms of JSON APIs. All that it says is in here, but for trace fields, Date and MIME fields."""

    author: Mailbox
    to: tuple[Mailbox, ...]
    cc: tuple[Mailbox, ...]
    reply_to: tuple[Mailbox, ...]
    subject: str
    text: str | None
    """lines end with LF"""
    html: str | None
    attachments: tuple[Attachment, ...]
    headers: tuple[Field, ...]
    """all other fields of the message, Message-ID among them, in its order, values decoded and unfolded"""


class ApiMail(NamedTuple):
    """What one request carries."""

    relay_id: str
    sender: str
    """envelope sender, '' for a DSN"""
    recipients: tuple[str, ...]
    """of the envelope: those that this request is for"""
    author: str
    """the address in From"""
    steering: Mapping[str, tuple[str, ...]]
    """values of the fields in `Api.steering`, by name in lower case; the message has them no more"""
    content: bytes
    """the message; for a raw API as it is sent, signed"""
    rebuilt: Rebuilt | None = None
    """for a JSON API"""

    def steered(self, name: str) -> str | None:
        """The first value of a steering field; None: the message had none."""
        return next(iter(self.steering.get(name.lower(), ())), None)

    @property
    def bcc(self) -> tuple[str, ...]:
        """Recipients that neither To nor Cc names."""
        named = {} if self.rebuilt is None else {same(one.address) for one in (*self.rebuilt.to, *self.rebuilt.cc)}
        return tuple(one for one in self.recipients if same(one) not in named)


def same(address: str) -> str:
    """What two spellings of one address have in common, as ESPs see it: case is ignored."""
    return address.lower()


class Credentials(NamedTuple):
    """What proves the relay to an API. Never shown: each API uses some of them."""

    key: str = ""
    """the API key; Microsoft Graph: an access token"""
    username: str = ""
    """Mailgun: the domain; Scaleway: the project; Microsoft Graph: the mailbox"""
    access_key_id: str = ""
    secret_access_key: str = ""
    session_token: str = ""
    region: str = ""
    """SES: these four"""

    def __repr__(self) -> str:
        return "Credentials(...)"

    def secrets(self) -> tuple[str, ...]:
        """What no reply may show."""
        return tuple(one for one in (self.key, self.secret_access_key, self.session_token) if one)


class Call(NamedTuple):
    """What a request needs besides the mail."""

    credentials: Credentials
    host: str
    """as the Host field has it"""
    prefix: str
    """path before the API's own, '' or as `/proxy`"""
    now: float
    """seconds since the epoch"""
    idempotency_key: str
    """the same for the same mail and recipients, however often it is asked"""


class ApiRequest(NamedTuple):
    """A POST. Host, Content-Length, Accept-Encoding and User-Agent are the client's."""

    path: str
    """with the prefix"""
    headers: tuple[tuple[str, str], ...]
    body: bytes

    def __repr__(self) -> str:
        return "ApiRequest(...)"


class Answer(NamedTuple):
    """A response."""

    status: int
    headers: Mapping[str, str]
    """names in lower case"""
    body: bytes | None
    """None: it is too long, compressed, or broke off"""


Kind = Literal["sent", "rejected", "unfit", "account", "throttled", "unavailable", "unknown", "in_progress"]
"""What an answer means for a recipient.

`sent`: the ESP has the mail. `rejected`: it never delivers to this recipient, or never delivers this mail: the
recipient's end. `unfit`: this API can't carry the mail, another upstream may. `account`: the key, the account, its
quota or its sender: no fault of the mail, and no use to ask again. `throttled`: too many requests. `unavailable`:
the ESP can't take mail now, and didn't. `unknown`: it may have the mail. `in_progress`: an earlier request with the
same key isn't answered yet.
"""


class Found(NamedTuple):
    """What became of one recipient."""

    kind: Kind
    text: str = ""
    """`sent`: the ESP's id of the mail; else its words, not redacted"""
    status: str = ""
    """of `rejected`: the enhanced status code, such as 5.1.1"""


class Verdict(NamedTuple):
    """What an answer says."""

    found: tuple[Found, ...]
    """one for each of `ApiMail.recipients`, in their order"""
    retry_after_s: float | None = None
    """`throttled`: how long to ask nothing; None: the answer doesn't say"""

    @classmethod
    def of_all(cls, mail: ApiMail, found: Found, retry_after_s: float | None = None) -> Verdict:
        """The same for every recipient."""
        return cls((found,) * len(mail.recipients), retry_after_s)


MakeRequest = Callable[[ApiMail, Call], ApiRequest]
Judge = Callable[[Answer, ApiMail, float], Verdict]
"""Never raises. The number is the time, in seconds since the epoch."""


def carries_all(_mail: ApiMail) -> str | None:
    """Nothing is in the way."""
    return None


def allows_all(_name: str) -> bool:
    """Every field may be set."""
    return True


@dataclass(frozen=True, slots=True)
class Api:
    """One ESP's API that sends mail."""

    form: Form
    url: str
    """scheme and host; `{region}` stands for the region"""
    request: MakeRequest
    judge: Judge
    recipients: int
    """in one request"""
    max_bytes: int
    """of the message"""
    needs: Literal["key", "aws", "token"] = "key"
    """`token`: OAuth 2"""
    why_not: Callable[[ApiMail], str | None] = carries_all
    """why the API can't carry a mail with the same meaning; None: it can. Its text holds nothing of the mail"""
    allows_header: Callable[[str], bool] = allows_all
    """JSON: whether a field of that name (lower case) may be set"""
    steering: frozenset[str] = frozenset()
    """header fields (lower case) that the ESP's SMTP server reads and removes: the API has parameters for them"""
    keeps_signature: bool = False
    """a DKIM signature of ours is good behind it"""
    rewrites: frozenset[str] = frozenset()
    """header fields (lower case) that such a signature must not cover, since the ESP writes them anew"""
    idempotent_s: float = 0.0
    """how long the ESP knows an idempotency key; 0: it has none"""
