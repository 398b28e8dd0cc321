"""Events of each kind of each ESP, with what they mean: kind, permanence and suppression."""

from __future__ import annotations

import json
from typing import Any
from urllib.parse import urlencode

from tests.providers.signers import sns_message

ANN = "ann@example.org"
Case = tuple[str, Any, str, bool | None, str | None]


def postmark(record: str, **more: Any) -> dict[str, Any]:
    return {"RecordType": record, "Email": ANN, "MessageID": "7d2a", **more}


def bounce(form: str, details: str = "", **more: Any) -> dict[str, Any]:
    return postmark("Bounce", Type=form, ID=7, BouncedAt="2026-03-01T12:00:00Z", Details=details, **more)


POSTMARK: list[Case] = [
    ("hard", bounce("HardBounce", "smtp;550 5.1.1 no such user"), "bounced", True, "bounce"),
    ("hard, policy", bounce("HardBounce", "smtp;550 5.7.1 no"), "bounced", True, None),
    ("hard, no status", bounce("HardBounce", "554 listed by an RBL"), "bounced", True, None),
    ("soft", bounce("SoftBounce"), "bounced", False, None),
    ("DNS", bounce("DnsError"), "deferred", False, None),
    ("virus", bounce("VirusNotification"), "bounced", True, None),
    ("unknown", bounce("Unknown"), "bounced", None, None),
    ("of tomorrow", bounce("Tomorrow"), "bounced", None, None),
    ("spam filter", bounce("SpamNotification"), "complained", None, None),
    ("spam filter, then inactive", bounce("SpamNotification", Inactive=True), "complained", None, "complaint"),
    ("bad address", bounce("BadEmailAddress"), "rejected", True, None),
    ("deactivated", bounce("ManuallyDeactivated"), "rejected", True, None),
    ("DMARC", bounce("DMARCPolicy"), "rejected", True, None),
    ("template", bounce("TemplateRenderingFailed"), "failed", True, None),
    ("auto-reply", bounce("AutoResponder"), "other", None, None),
    ("unsubscribe by mail", bounce("Unsubscribe"), "unsubscribed", None, "unsubscribe"),
    ("first webhooks", {"Type": "HardBounce", "Email": ANN, "BouncedAt": "2014-08-01T13:28:10.2735393-04:00"},
     "bounced", True, "bounce"),
    ("open", postmark("Open", ReceivedAt="2026-03-01T12:00:00Z"), "opened", None, None),
    ("click", postmark("Click", OriginalLink="https://example.com"), "clicked", None, None),
    ("inbound", postmark("Inbound"), "other", None, None),
    ("suppressed", postmark("SubscriptionChange", SuppressSending=True, SuppressionReason="HardBounce"),
     "other", None, "bounce"),
    ("complaint", postmark("SubscriptionChange", SuppressSending=True, SuppressionReason="SpamComplaint"),
     "other", None, "complaint"),
    ("by hand", postmark("SubscriptionChange", SuppressSending=True, SuppressionReason="ManualSuppression"),
     "other", None, "unsubscribe"),
    ("active again", postmark("SubscriptionChange", SuppressSending=False, SuppressionReason="HardBounce"),
     "other", None, None),
]  # fmt: skip


def sendgrid(event: str, **more: Any) -> list[dict[str, Any]]:
    return [{"event": event, "email": ANN, "timestamp": 1772366405, "sg_event_id": "abc", **more}]


SENDGRID: list[Case] = [
    ("blocked", sendgrid("bounce", type="blocked", status="5.7.1", reason="550 5.7.1 no"), "bounced", False, None),
    ("expired", sendgrid("bounce", type="expired", reason="unable to get mx info"), "bounced", False, None),
    ("policy", sendgrid("bounce", type="bounce", status="5.7.1"), "bounced", True, None),
    ("technical", sendgrid("bounce", type="bounce", bounce_classification="Technical"), "bounced", True, None),
    ("address", sendgrid("bounce", type="bounce", bounce_classification="Invalid Address"), "bounced", True, "bounce"),
    ("4yz", sendgrid("bounce", status="4.2.2"), "bounced", False, None),
    ("dropped", sendgrid("dropped", reason="Bounced Address"), "rejected", True, None),
    ("spam report", sendgrid("spamreport"), "complained", None, "complaint"),
    ("group", sendgrid("group_unsubscribe", asm_group_id=7), "unsubscribed", None, "unsubscribe"),
    ("group, back", sendgrid("group_resubscribe", asm_group_id=7), "other", None, None),
    ("open", sendgrid("open", sg_machine_open=True), "opened", None, None),
    ("account", sendgrid("account_status_change", type="compliance_suspend"), "other", None, None),
]


def ses(event: str, part: str = "", /, **more: Any) -> bytes:
    mail = {"messageId": "0107-000000", "timestamp": "2026-03-01T12:00:00.237Z", "destination": [ANN]}
    return sns_message({"eventType": event, "mail": mail, part: more})


def ses_bounce(form: str, subtype: str, status: str = "5.1.1") -> bytes:
    recipients = [{"emailAddress": ANN, "status": status, "diagnosticCode": f"smtp; 550 {status} no"}]
    return ses("Bounce", "bounce", bounceType=form, bounceSubType=subtype, bouncedRecipients=recipients)


def ses_complaint(**more: Any) -> bytes:
    return ses("Complaint", "complaint", complainedRecipients=[{"emailAddress": ANN}], **more)


SES: list[Case] = [
    ("no mailbox", ses_bounce("Permanent", "NoEmail"), "bounced", True, "bounce"),
    ("policy", ses_bounce("Permanent", "General", "5.7.1"), "bounced", True, None),
    ("expired", ses_bounce("Permanent", "General", "5.4.7"), "bounced", True, None),
    ("undetermined", ses_bounce("Undetermined", "Undetermined"), "bounced", None, None),
    ("suppressed", ses_bounce("Permanent", "Suppressed"), "rejected", True, None),
    ("on the list", ses_bounce("Permanent", "OnAccountSuppressionList"), "rejected", True, None),
    ("complaint", ses_complaint(complaintFeedbackType="abuse"), "complained", None, "complaint"),
    ("no spam", ses_complaint(complaintFeedbackType="not-spam"), "other", None, None),
    ("not tried", ses_complaint(complaintSubType="OnAccountSuppressionList"), "rejected", True, None),
    ("delay", ses("DeliveryDelay", "deliveryDelay", delayType="MailboxFull",
                  delayedRecipients=[{"emailAddress": ANN, "status": "4.2.2"}]), "deferred", False, None),
    ("send", ses("Send", "send"), "processed", None, None),
    ("open", ses("Open", "open", timestamp="2026-03-01T12:01:00Z"), "opened", None, None),
    ("rendering", ses("Rendering Failure", "failure", errorMessage="no such variable"), "failed", True, None),
    ("list", ses("Subscription", "subscription", newTopicPreferences={"unsubscribeAll": False}), "other", None, None),
    ("all lists", ses("Subscription", "subscription", newTopicPreferences={"unsubscribeAll": True}),
     "unsubscribed", None, "unsubscribe"),
    ("of tomorrow", ses("Tomorrow"), "other", None, None),
]  # fmt: skip


def resend(event: str, **more: Any) -> dict[str, Any]:
    return {"type": event, "created_at": "2026-03-01T12:00:05.000Z", "data": {"to": [f"Ann <{ANN}>"], **more}}


RESEND: list[Case] = [
    ("sent", resend("email.sent"), "processed", None, None),
    ("scheduled", resend("email.scheduled"), "processed", None, None),
    ("permanent", resend("email.bounced", bounce={"type": "Permanent", "subType": "General"}),
     "bounced", True, "bounce"),
    ("policy", resend("email.bounced", bounce={"type": "Permanent", "diagnosticCode": ["smtp; 550 5.7.1 no"]}),
     "bounced", True, None),
    ("suppressed", resend("email.bounced", bounce={"type": "Permanent", "subType": "OnAccountSuppressionList"}),
     "rejected", True, None),
    ("suppressed, 2023", resend("email.bounced", bounce={"message": "Resend has suppressed sending to this address"}),
     "rejected", True, None),
    ("failed", resend("email.failed", failed={"reason": "reached_daily_quota"}), "failed", True, None),
    ("complained", resend("email.complained"), "complained", None, "complaint"),
    ("clicked", resend("email.clicked", click={"link": "https://example.com"}), "clicked", None, None),
    ("received", resend("email.received"), "other", None, None),
    ("contact", {"type": "contact.created", "data": {"email": ANN, "to": ANN}}, "other", None, None),
]  # fmt: skip


def mailgun(event: str, **more: Any) -> dict[str, Any]:
    return {"event-data": {"event": event, "id": "x", "recipient": ANN, "timestamp": 1772366405.1, **more}}


def failed(severity: str, why: str, code: int, message: str = "") -> dict[str, Any]:
    return mailgun("failed", severity=severity, reason=why, **{"delivery-status": {"code": code, "message": message}})


def form(**fields: str) -> bytes:
    return urlencode({"recipient": ANN, **fields}).encode()


MAILGUN: list[Case] = [
    ("bounce", failed("permanent", "bounce", 550, "5.1.1 no such user"), "bounced", True, "bounce"),
    ("policy", failed("permanent", "generic", 550, "5.7.1 no"), "bounced", True, None),
    ("too old", failed("permanent", "old", 602), "bounced", True, None),
    ("blocked", failed("permanent", "espblock", 554), "bounced", True, None),
    ("no connection", failed("permanent", "generic", 499), "bounced", True, None),
    ("bounced before", failed("permanent", "suppress-bounce", 605), "rejected", True, None),
    ("complained before", failed("permanent", "suppress-complaint", 607), "rejected", True, None),
    ("left before", failed("permanent", "generic", 606), "rejected", True, None),
    ("temporary", failed("temporary", "generic", 452), "deferred", False, None),
    ("opened", mailgun("opened"), "opened", None, None),
    ("clicked", mailgun("clicked", url="https://example.com"), "clicked", None, None),
    ("unsubscribed", mailgun("unsubscribed"), "unsubscribed", None, "unsubscribe"),
    ("stored", mailgun("stored"), "other", None, None),
    ("legacy delivered", form(event="delivered"), "delivered", None, None),
    ("legacy bounced", form(event="bounced", code="550", error="5.1.1 no such user"), "bounced", True, "bounce"),
    ("legacy complained", form(event="complained"), "complained", None, "complaint"),
    ("legacy unsubscribed", form(event="unsubscribed"), "unsubscribed", None, "unsubscribe"),
    ("legacy opened", form(event="opened"), "opened", None, None),
    ("legacy clicked", form(event="clicked"), "clicked", None, None),
]


def brevo(event: str, **more: Any) -> dict[str, Any]:
    return {"event": event, "email": ANN, "message-id": "<a@b>", "ts_event": 1772366405, **more}


BREVO: list[Case] = [
    ("hard", brevo("hard_bounce", reason="550 5.1.1 no such user"), "bounced", True, "bounce"),
    ("hard, as the API names it", brevo("hardBounce"), "bounced", True, "bounce"),
    ("policy", brevo("hard_bounce", reason="550 5.7.1 no"), "bounced", True, None),
    ("soft", brevo("soft_bounce"), "bounced", False, None),
    ("opened", brevo("opened"), "opened", None, None),
    ("first", brevo("unique_opened"), "opened", None, None),
    ("proxy", brevo("proxy_open"), "opened", None, None),
    ("click", brevo("click", link="https://example.com"), "clicked", None, None),
    ("unsubscribe", brevo("unsubscribe"), "unsubscribed", None, "unsubscribe"),
    ("list", brevo("list_addition"), "other", None, None),
]


def sparkpost(event: str, **more: Any) -> list[dict[str, Any]]:
    inner = {"type": event, "rcpt_to": ANN, "timestamp": "1772366405", "event_id": "9", **more}
    return [{"msys": {"message_event": inner}}]


SPARKPOST: list[Case] = [
    ("injection", sparkpost("injection"), "processed", None, None),
    ("delay", sparkpost("delay", raw_reason="451 4.7.1 later"), "deferred", False, None),
    ("out of band", sparkpost("out_of_band", bounce_class="10"), "bounced", True, "bounce"),
    ("no recipient", sparkpost("bounce", bounce_class="30"), "bounced", True, "bounce"),
    ("full", sparkpost("bounce", bounce_class="22"), "bounced", False, None),
    ("spam block", sparkpost("bounce", bounce_class="51", raw_reason="550 spam"), "bounced", False, None),
    ("unclear", sparkpost("bounce", bounce_class="1"), "bounced", None, None),
    ("unclear, 5yz", sparkpost("bounce", bounce_class="1", raw_reason="550 what?"), "bounced", True, None),
    ("unclear, 5.1.1", sparkpost("bounce", raw_reason="550 5.1.1 unknown"), "bounced", True, "bounce"),
    ("auto-reply", sparkpost("bounce", bounce_class="60"), "other", None, None),
    ("unsubscribe by mail", sparkpost("bounce", bounce_class="90"), "unsubscribed", None, "unsubscribe"),
    ("policy", sparkpost("policy_rejection", raw_reason="550 5.7.1"), "rejected", True, None),
    ("generation", sparkpost("generation_failure"), "failed", True, None),
    ("generation, refused", sparkpost("generation_rejection"), "rejected", True, None),
    ("not spam", sparkpost("spam_complaint", fbtype="not-spam"), "other", None, None),
    ("list", sparkpost("list_unsubscribe"), "unsubscribed", None, "unsubscribe"),
    ("link", sparkpost("link_unsubscribe"), "unsubscribed", None, "unsubscribe"),
    ("first open", sparkpost("initial_open"), "opened", None, None),
    ("AMP", sparkpost("amp_click"), "clicked", None, None),
    ("of tomorrow", sparkpost("tomorrow"), "other", None, None),
]


def mailjet(event: str, **more: Any) -> dict[str, Any]:
    return {"event": event, "email": ANN, "time": 1772366405, "MessageID": 92042317804662640, **more}


def mailjet_bounce(hard: bool, related: str, error: str) -> dict[str, Any]:
    return mailjet("bounce", hard_bounce=hard, error_related_to=related, error=error)


MAILJET: list[Case] = [
    ("sent", mailjet("sent", smtp_reply="sent (250 2.0.0 OK)"), "delivered", None, None),
    ("full", mailjet_bounce(False, "recipient", "quota exceeded"), "bounced", False, None),
    ("content", mailjet_bounce(True, "spam", "content blocked"), "bounced", True, None),
    ("system", mailjet_bounce(True, "system", "system issue"), "bounced", True, None),
    ("domain", mailjet_bounce(True, "domain", "relay/access denied"), "bounced", True, None),
    ("no domain", mailjet_bounce(True, "domain", "invalid domain"), "bounced", True, "bounce"),
    ("greylisted", mailjet_bounce(False, "domain", "greylisted"), "deferred", False, None),
    ("open", mailjet("open"), "opened", None, None),
    ("click", mailjet("click", url="https://example.com"), "clicked", None, None),
    ("unsub", mailjet("unsub"), "unsubscribed", None, "unsubscribe"),
    ("spam", mailjet("spam"), "complained", None, "complaint"),
]


def mandrill(event: str, **msg: Any) -> bytes:
    events = [{"event": event, "_id": "abc", "ts": 1772366405, "msg": {"email": ANN, "_id": "abc", **msg}}]
    return urlencode({"mandrill_events": json.dumps(events)}).encode()


SYNC = [{"type": "blacklist", "action": "add", "ts": 1772366405, "reject": {"email": ANN, "reason": "hard-bounce"}}]
MANDRILL: list[Case] = [
    ("send", mandrill("send"), "processed", None, None),
    ("delivered", mandrill("delivered"), "delivered", None, None),
    ("hard", mandrill("hard_bounce", bounce_description="bad_mailbox", diag="smtp;550 5.1.1 no"),
     "bounced", True, "bounce"),
    ("hard, policy", mandrill("hard_bounce", diag="smtp;550 5.7.1 no"), "bounced", True, None),
    ("soft", mandrill("soft_bounce", bounce_description="mailbox_full"), "bounced", False, None),
    ("spam", mandrill("spam"), "complained", None, "complaint"),
    ("unsub", mandrill("unsub"), "unsubscribed", None, "unsubscribe"),
    ("open", mandrill("open"), "opened", None, None),
    ("click", mandrill("click"), "clicked", None, None),
    ("list", urlencode({"mandrill_events": json.dumps(SYNC)}).encode(), "other", None, None),
]  # fmt: skip

TABLES: dict[str, list[Case]] = {
    "postmark": POSTMARK,
    "sendgrid": SENDGRID,
    "ses": SES,
    "resend": RESEND,
    "mailgun": MAILGUN,
    "brevo": BREVO,
    "sparkpost": SPARKPOST,
    "mailjet": MAILJET,
    "mandrill": MANDRILL,
}
