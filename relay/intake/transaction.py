"""A mail transaction: the envelope of one message while MAIL and RCPT build it (RFC 5321 3.3). Pure."""

from __future__ import annotations

from relay.intake import replies
from relay.intake.answer import Answer, refuse
from relay.intake.parameters import BadCommand, Mail, parse_rcpt
from relay.mail.envelope import Envelope, Recipient

_REPEATED_RECIPIENTS = 1_000
"""How many RCPTs a message may have beyond its limit of recipients: repeated, refused or surplus ones."""


class MailTransaction:
    """Begins with an accepted MAIL."""

    def __init__(self, mail: Mail, hostname: str) -> None:
        """`hostname`: the domain of an address without one."""
        self.recipients: dict[str, Recipient] = {}
        self.recipient_refused = False
        self._mail = mail
        self._hostname = hostname
        self._commands = 0

    def add_recipient(self, argument: str, limit: int) -> Answer:
        """Answer a RCPT; `limit`: how many recipients a message may have."""
        self._commands += 1
        if self._commands > limit + _REPEATED_RECIPIENTS:
            return refuse(replies.ENDLESS_RECIPIENTS, "recipients")
        try:
            recipient = parse_rcpt(argument, smtputf8=self._mail.smtputf8)
        except BadCommand as bad:
            # An address list has bad entries: they are no mistakes of the client's program.
            self.recipient_refused = True
            return Answer(bad.reply, bad.reason)
        if (address := self._qualified(recipient.address)) != recipient.address:
            recipient = recipient._replace(address=address)
        local, at, domain = address.rpartition("@")
        key = local + at + domain.lower()
        if key not in self.recipients and len(self.recipients) >= limit:
            return refuse(replies.TOO_MANY_RECIPIENTS, "recipients")
        # A repeated recipient is accepted, and gets one mail.
        self.recipients.setdefault(key, recipient)
        return Answer(replies.RECIPIENT_OK)

    @property
    def sender(self) -> str:
        """'' for the null sender."""
        return self._qualified(self._mail.sender)

    def envelope(self) -> Envelope:
        mail = self._mail
        return Envelope(
            sender=self.sender,
            recipients=tuple(self.recipients.values()),
            body=mail.body,
            smtputf8=mail.smtputf8,
            ret=mail.ret,
            envid=mail.envid,
            priority=mail.priority,
            deliver_by=mail.deliver_by,
        )

    def _qualified(self, address: str) -> str:
        """RFC 5321 4.1.1.3: only <Postmaster> has no domain, and means the one of this host."""
        return address if not address or "@" in address else f"{address}@{self._hostname}"
