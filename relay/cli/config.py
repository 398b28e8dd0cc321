"""`otp-relay check` and `otp-relay explain`: validate the configuration, show how it routes a message."""

from __future__ import annotations

import argparse
import json
import math
import sys
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from relay.cli.common import (
    EXIT_OK,
    EXIT_USAGE,
    CommandFailed,
    add_config,
    config_path,
    configured_duration,
    content_of,
    load_or_exit,
    printable,
    set_command,
)

if TYPE_CHECKING:
    from relay.config.model import Config, Limits, Listener, Loaded
    from relay.config.rate_limit import CountPer
    from relay.mail.message import Message
    from relay.routing.facts import Facts

MAX_MESSAGE_BYTES = 1 << 30


def register(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    check_parser = subparsers.add_parser(
        "check",
        help="validate the configuration and the files it names",
        description="Validates the configuration and every file it names, without starting. "
        "Exit 0: all well; 2: the errors are on stderr.",
    )
    add_config(check_parser)
    set_command(check_parser, check)

    explain_parser = subparsers.add_parser(
        "explain",
        help="show the lane of a message, and why",
        description="Shows lane, rule, upstreams, the way to each, warm sessions, signatures and limits of a message, "
        "and why each earlier rule did not match. Sends nothing.",
    )
    add_config(explain_parser)
    explain_parser.add_argument("file", metavar="FILE.eml", help="the message; - is standard input")
    explain_parser.add_argument("--from", dest="sender", metavar="A", help="envelope sender (default: the header's)")
    explain_parser.add_argument(
        "--to", dest="recipients", metavar="B", action="append", help="a recipient, repeatable (default: the header's)"
    )
    explain_parser.add_argument("--client", metavar="IP", default="127.0.0.1", help="default: 127.0.0.1")
    explain_parser.add_argument("--listener", metavar="ADDRESS", help="default: the first that is configured")
    explain_parser.add_argument("--lane", metavar="NAME", help="the lane that a request to /api/send names")
    explain_parser.add_argument("--user", metavar="NAME", help="the user that logged in (default: none)")
    explain_parser.add_argument("--priority", metavar="N", type=int, help="MT-PRIORITY")
    explain_parser.add_argument("--json", action="store_true", help="one JSON document")
    set_command(explain_parser, explain)


def check(args: argparse.Namespace) -> int:
    """Exit 0 with a summary and notes; or 2 with the errors."""
    from relay.doctor import configuration

    loaded = load_or_exit(config_path(args))
    findings = configuration.check(loaded)
    errors = [one for one in findings if one.status == "fail"]
    for error in errors:
        print(error.text, file=sys.stderr)
    if errors:
        return EXIT_USAGE
    for note in (*loaded.notes, *(one.text for one in findings)):
        print(f"note: {note}")
    print(f"{loaded.path}: ok ({configuration.summary(loaded)}; default lane {loaded.config.default_lane})")
    return EXIT_OK


def explain(args: argparse.Namespace) -> int:
    """Exit 0; or 2 if the configuration is wrong or the message can't be accepted."""
    from relay.cli import parts
    from relay.cli.ways import accepted
    from relay.mail.message import Unacceptable, normalise, parse

    loaded = load_or_exit(config_path(args))
    try:
        content = content_of(args.file, MAX_MESSAGE_BYTES)
        message = parse(normalise(content), limited=True)
        stored = accepted(message, loaded.config.hostname)
    except OSError as error:
        raise CommandFailed(f"{args.file}: {error.strerror or error}", EXIT_USAGE) from None
    except Unacceptable as error:
        raise CommandFailed(f"{args.file}: would be refused: {error.reply}", EXIT_USAGE) from None
    listener = _listener(args, loaded.config)
    facts = _facts(args, listener, message)
    each = list(parts.split(loaded.config, facts))
    documents = [
        _with_ways(
            _explanation(loaded, listener, part, message, len(content)),
            *(loaded.config, part, stored),
            is_part=len(each) > 1,
        )
        for part in each
    ]
    document = parts.joined(loaded.config, documents, facts)
    document["refused"] += _too_large(len(content), len(facts.recipients), loaded.config.limits)
    print(json.dumps(document, ensure_ascii=False) if args.json else _as_text(document, loaded.config))
    return EXIT_OK


def _listener(args: argparse.Namespace, config: Config) -> Listener:
    """What the message comes to. Raises CommandFailed for a listener or a lane that isn't configured."""
    listeners = (*config.listen, config.http.sending)
    wanted = str(config.http.sending.address) if args.lane is not None else args.listener
    listener = next((one for one in listeners if wanted in (None, str(one.address))), None)
    if listener is None:
        known = ", ".join(str(one.address) for one in listeners)
        raise CommandFailed(f"there is no listener {args.listener}; there is {known}", EXIT_USAGE)
    if args.lane is not None and args.lane not in config.lanes:
        raise CommandFailed(f"there is no lane {args.lane}; there is {', '.join(config.lanes)}", EXIT_USAGE)
    return listener


def _facts(args: argparse.Namespace, listener: Listener, message: Message) -> Facts:
    """The facts that the rules match."""
    from relay.mail.codes.examination import Examination
    from relay.mail.message import from_addresses, subject
    from relay.routing.facts import Facts

    senders = from_addresses(message)
    recipients = tuple(args.recipients or _header_addresses(message, ("to", "cc", "bcc")))
    sender = args.sender if args.sender is not None else next(iter(senders), "")
    return Facts(
        sender="" if sender == "<>" else sender,
        from_addresses=senders,
        recipients=recipients,
        client=args.client,
        subject=subject(message),
        headers=tuple((field.name, field.value) for field in message.fields),
        listener=str(listener.address),
        listener_lane=listener.lane,
        priority=args.priority,
        user=args.user,
        named_lane=args.lane,
        examination=Examination(message),
    )


def _header_addresses(message: Message, names: tuple[str, ...]) -> list[str]:
    from relay.mail.address_list import addresses_in
    from relay.mail.header_text import text_of

    found = [addresses_in(text_of(field.value)) for field in message.fields if field.name in names]
    return list(dict.fromkeys(address for addresses in found for address in addresses))


def _explanation(loaded: Loaded, listener: Listener, facts: Facts, message: Message, size_bytes: int) -> dict[str, Any]:
    """The JSON document: the route of a message or of a part of it, and how the relay would process it."""
    from relay.cli.limited import limited
    from relay.cli.preferred import preferred
    from relay.cli.suppressed import suppressed
    from relay.cli.warm import warm
    from relay.doctor.sessions import running
    from relay.routing.router import Router

    router = Router(loaded.config)
    explanation = router.explain(facts)
    by_limits = limited(loaded.config, facts, message, explanation.route, router.demoted(explanation.route))
    route, limits = by_limits.route, loaded.config.limits
    lane, routed = loaded.config.lanes[route.lane], loaded.config.lanes[explanation.route.lane]
    prefers = lane.prefer == "fastest"
    of_relay = running(loaded.config) if prefers or lane.express else {}
    return {
        "lane": route.lane,
        "rule": route.rule,
        "content": _content_seen(facts),
        "earlier": [{"rule": step.rule, "why_not": list(step.reasons)} for step in explanation.earlier],
        "upstreams": list(route.upstreams),
        "prefer": preferred(route.lane, route.upstreams, facts.recipients, of_relay) if prefers else None,
        "warm": warm(loaded.config, route.lane, route.upstreams, of_relay) if lane.express else {},
        "sender": facts.sender,
        "recipients": list(facts.recipients),
        "redirect": loaded.config.redirect,
        "copy_to": routed.copy_to or lane.copy_to,
        "copy_masked": routed.express and not routed.copy_codes,
        "suppressed": suppressed(loaded.config.store, lane, facts.recipients, time.time()),
        "client": facts.client,
        "listener": facts.listener,
        "size": size_bytes,
        "dkim": _dkim(loaded, facts),
        "expires_ms": round(route.life_s * 1000),
        "limits": {
            "message_size": limits.message_size_bytes,
            "recipients": limits.recipients,
            **{name: [_rate_limit(one) for one in getattr(routed.limits, name)] for name in _RATE_LIMITS},
            "resend_after_ms": [pause_s * 1000 for pause_s in routed.limits.resend_after_s],
            "action": routed.limits.action,
            "counters": by_limits.counters,
        },
        "limited": list(by_limits.reasons),
        "refused": [
            *_not_allowed(listener, facts, message),
            *([by_limits.refusal] if by_limits.refusal is not None else []),
        ],
    }


def _with_ways(
    document: dict[str, Any], config: Config, facts: Facts, content: bytes, *, is_part: bool
) -> dict[str, Any]:
    """The document with the way to each upstream; with keys only where a signature goes along with one of them."""
    from relay.cli.ways import Mail, ways

    mail = Mail(content, facts.sender, tuple(facts.recipients), is_part, document["dkim"] is not None)
    found = ways(config, document["upstreams"], mail)
    is_signed = any(way["signed"] for way in found.values())
    return {**document, "ways": found, "dkim": document["dkim"] if is_signed else None}


def _content_seen(facts: Facts) -> dict[str, Any] | None:
    """What the content detector saw, and why; None: no rule asked. The reasons hold no code."""
    made = facts.examination.made if facts.examination is not None else None
    return None if made is None else {"seen": made.content, "reasons": list(made.explain())}


def _not_allowed(listener: Listener, facts: Facts, message: Message) -> list[str]:
    """The reply to a sender or an author that may not send there."""
    from relay.intake.users import UsersError, senders_of
    from relay.mail.message import has_clear_authors
    from relay.policy.check import Refuse
    from relay.policy.sender import check_author

    of_user: tuple[str, ...] = ()
    if facts.user is not None and listener.users_file is not None:
        with suppress(UsersError):  # `check` reports it
            of_user = senders_of(listener.users_file, facts.user)
    restrictions = (listener.senders or (), of_user)
    decision = check_author(restrictions, facts.sender, facts.from_addresses, lambda: has_clear_authors(message))
    return [str(decision.reply)] if isinstance(decision, Refuse) else []


_RATE_LIMITS = ("per_recipient", "per_client", "per_sender")


def _too_large(size_bytes: int, recipients: int, limits: Limits) -> list[str]:
    return [
        f"{found} {unit}, {limit} are taken"
        for found, limit, unit in (
            (size_bytes, limits.message_size_bytes, "bytes"),
            (recipients, limits.recipients, "recipients"),
        )
        if found > limit
    ]


def _dkim(loaded: Loaded, facts: Facts) -> dict[str, Any] | None:
    """The domain that signs, and the selectors of its keys."""
    from relay.mail.address import domain_of
    from relay.mail.dkim import Signer

    if not loaded.config.dkim or not facts.from_addresses:
        return None
    keys = Signer(loaded.config.dkim, loaded.dkim_pems).select(domain_of(facts.from_addresses[0]))
    return None if keys is None else {"domain": keys.domain, "selectors": list(keys.selectors)}


def _rate_limit(limit: CountPer) -> dict[str, float]:
    return {"count": limit.count, "period_ms": limit.period_s * 1000}


def _as_text(document: dict[str, Any], config: Config) -> str:
    from relay.cli import parts, preferred, warm, ways
    from relay.config.model import API_RULE, PINNED_RULE

    reason = "no rule matched: the default lane" if document["rule"] is None else f"rule {document['rule']}"
    if document["rule"] == PINNED_RULE:
        reason = f"pinned by listener {document['listener']}"
    elif document["rule"] == API_RULE:
        reason = "named by the request"
    dkim = document["dkim"]
    limits = _limits_text(document["limits"])
    return "\n".join(
        (
            f"lane       {document['lane']} ({reason})",
            *(f"part       {line}" for line in parts.as_lines(document)),
            *(f"not        {step['rule']}: {why}" for step in document["earlier"] for why in step["why_not"]),
            *([f"content    {_content_text(document['content'])}"] if document["content"] else ()),
            f"upstreams  {', '.join(document['upstreams'])}",
            *([f"prefer     {preferred.as_text(document['prefer'])}"] if document["prefer"] else ()),
            *(f"via        {line}" for line in ways.as_lines(document["ways"], config.upstreams)),
            *(f"warm       {name}: {warm.as_text(one)}" for name, one in document["warm"].items()),
            f"from       {document['sender'] or '<>'}",
            f"to         {', '.join(document['recipients']) or 'no recipient'}",
            *([f"redirect   one copy goes to {document['redirect']} instead"] if document["redirect"] else ()),
            *(
                [f"copy       to {document['copy_to']}{_MASKED[document['copy_masked']]}"]
                if document["copy_to"]
                else ()
            ),
            *(f"suppressed {printable(f'{one}: {why}')}" for one, why in (document["suppressed"] or {}).items()),
            "signed     " + ("no" if dkim is None else f"{dkim['domain']}: {', '.join(dkim['selectors'])}"),
            f"expires    {configured_duration(document['expires_ms'])} after the final dot",
            f"limits     {', '.join(limits) or 'none'}",
            *(f"counted    {text}" for text in _counters_text(document["limits"]["counters"])),
            *(f"limited    {reason}" for reason in document["limited"]),
            *(f"refused    {refusal}" for refusal in document["refused"]),
        )
    )


def _content_text(content: dict[str, Any]) -> str:
    return f"{content['seen']}: {'; '.join(content['reasons'])}"


_MASKED = {True: ", with codes masked", False: ", whole"}


def _limits_text(limits: dict[str, Any]) -> list[str]:
    found = [
        f"{limit['count']} in {configured_duration(limit['period_ms'])} a {name.removeprefix('per_')}"
        for name in _RATE_LIMITS
        for limit in limits[name]
    ]
    if limits["resend_after_ms"]:
        found.append("again after " + ", ".join(map(configured_duration, limits["resend_after_ms"])))
    return [*found, f"beyond: {limits['action']}"] if found else []


def _counters_text(counters: list[dict[str, Any]]) -> list[str]:
    """A line for each limit and key; recipients of which the same is known have one."""
    texts = []
    for one in counters:
        used = [f"{w['used']} of {w['count']} in {configured_duration(w['period_ms'])}" for w in one["windows"]]
        texts.append(", ".join([one["limit"], *used, _wait_text(one["wait_ms"])]))
    return list(dict.fromkeys(texts))


def _wait_text(wait_ms: float | None) -> str:
    if wait_ms is None:
        return "never free"
    return f"free in {configured_duration(math.ceil(wait_ms / 1000) * 1000)}" if wait_ms else "free now"
