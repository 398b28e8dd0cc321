"""The answers of `otp-relay init`: from options, from a person at a terminal, or defaults."""

from __future__ import annotations

import argparse
import re
import sys
import textwrap
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from relay.cli.common import EXIT_USAGE, STDIN, CommandFailed, printable
from relay.config.named_file import MAX_SECRET_BYTES, read_named_file
from relay.config.network import SystemdAddress, TcpAddress, is_host, parse_address, parse_network
from relay.config.parse import DEFAULT_HTTP
from relay.config.patterns import compiled, matches_no_address
from relay.mail.dkim import ascii_domain, is_dns_name
from relay.providers.registry import find_preset, nearest_preset, presets
from relay.setup.plan import LOCAL, OTHER, PRIVATE_NETWORKS, RUNNERS, Account, Plan, Runner

DEFAULT_LISTEN = "127.0.0.1:2525"
DEFAULT_RUNNER: Runner = "plain"
NO = "none"
# What is asked: an explanation, and the question in the last line.
_SECOND = """\
A second provider takes over when the first one fails, and is asked, too, while the first one is slow.
Second provider"""
_DOMAIN = """\
Mail from this domain and those below it is signed, with keys that are made now.
Domain of your From addresses"""
_SENDERS = """\
Mail from these addresses is a code whatever its text, such as *@otp.example.com. Other codes are found by their text.
From addresses of codes, with commas"""
_RUNNER = f"""\
systemd: a unit for it; compose: a compose.yaml; plain: you start it yourself.
What starts the relay: {", ".join(RUNNERS)}"""
_LISTEN = """\
The SMTP settings of your apps get this address. It needs no TLS and no password.
Where your apps submit mail"""
_NETWORKS = """\
Other machines can reach that address, so only these networks may connect.
Networks of your apps, with commas"""


def plan_for(args: argparse.Namespace) -> Plan:
    """The whole set-up. Raises CommandFailed for an option that makes no sense, or where there is no one to ask."""
    if not args.yes and not sys.stdin.isatty():
        raise CommandFailed("init asks at a terminal; without one, give --yes, --preset and --domain", EXIT_USAGE)
    ask = None if args.yes else Terminal()
    first = _account(args, ask, is_second=False)
    assert first is not None, "only the second may be none"
    second = _account(args, ask, is_second=True, taken=first.name)
    domain = _value("--domain", args.domain, domain_of, ask, _DOMAIN)
    senders = _values("--sender", args.sender, sender_of, ask, _SENDERS)
    runner = runner_of(_value("--run", args.runner, runner_of, ask, _RUNNER, DEFAULT_RUNNER))
    where = _LISTEN + (" on the host" if runner == "compose" else "")
    listen = _value("--listen", args.listen, listen_in(runner), ask, where, DEFAULT_LISTEN)
    plan = Plan(tuple(one for one in (first, second) if one is not None), domain, listen, runner, senders)
    if plan.listens_privately or isinstance(parse_address(listen, None), SystemdAddress):
        return plan
    default = ", ".join(PRIVATE_NETWORKS)
    allow = _values("--allow", args.allow, network_of, ask, _NETWORKS, default)
    return replace(plan, allow=allow or PRIVATE_NETWORKS)


class Terminal:
    """Asks a person. Ctrl-C and the end of input end the command."""

    def line(self, question: str, default: str | None, check: Callable[[str], str]) -> str:
        """An answer that passes `check`, which raises ValueError with the reason. The lines before the question's last
        one explain it."""
        explained, _, question = question.rpartition("\n")
        if explained:
            print(f"\n{explained}")
        shown = f" [{default}]" if default else ""
        while True:
            try:
                given = input(f"{question}{shown}: ").strip() or (default or "")
            except EOFError:
                raise CommandFailed("the input has ended; nothing is written", EXIT_USAGE) from None
            try:
                return check(given)
            except ValueError as error:
                print(f"  {printable(str(error))}")

    def secret(self, question: str) -> str | None:
        """What is typed without being shown; None for nothing."""
        from getpass import getpass

        while True:
            try:
                return one_line(getpass(f"{question}, not shown (Enter: fill it in later): ")) or None
            except ValueError as error:
                print(f"  {error}")
            except EOFError:
                raise CommandFailed("the input has ended; nothing is written", EXIT_USAGE) from None


def _value(
    option: str,
    given: str | None,
    check: Callable[[str], str],
    ask: Terminal | None,
    question: str,
    default: str | None = None,
) -> str:
    """The option's value; else the answer; else the default. Raises CommandFailed."""
    if given is None and ask is not None:
        return ask.line(question, default, check)
    if (value := given if given is not None else default) is None:
        raise CommandFailed(f"{option} is missing", EXIT_USAGE)
    try:
        return check(value)
    except ValueError as error:
        raise CommandFailed(printable(f"{option}: {error}"), EXIT_USAGE) from None


def _values(
    option: str,
    given: Sequence[str] | None,
    check: Callable[[str], str],
    ask: Terminal | None,
    question: str,
    default: str = NO,
) -> tuple[str, ...]:
    """As `_value`, of a list: the option is repeated, an answer has commas."""

    def all_of(text: str) -> str:
        return ", ".join(check(one.strip()) for one in text.split(",") if one.strip() not in ("", NO))

    text = _value(option, None if given is None else ",".join(given), all_of, ask, question, default)
    return tuple(one for one in text.split(", ") if one)


def _account(args: argparse.Namespace, ask: Terminal | None, *, is_second: bool, taken: str = "") -> Account | None:
    """One upstream; None: there is no second one."""
    prefix = "second_" if is_second else ""
    preset = _preset(args.second if is_second else args.preset, ask, is_second=is_second)
    if preset == NO:
        return None
    name = "server" if preset == OTHER else preset
    account = Account(name if name != taken else f"{name}-2", preset)
    if (wanted := account.needs_host) is not None:
        host = None if is_second else args.host
        account = replace(account, host=_optional(host, host_of, ask, f"SMTP server ({wanted})", "--host"))
    if (needed := account.needs_username) is not None:
        given = getattr(args, f"{prefix}username")
        account = replace(
            account, username=_optional(given, one_line, ask, needed[0].upper() + needed[1:], "--username")
        )
    if account.with_token and ask is not None:
        account = replace(account, oauth2=dict(_application(ask)))
    if account.has_secret:
        file = getattr(args, f"{prefix}password_file")
        account = replace(account, secret=_secret(file, account, ask))
    return account


def _preset(given: str | None, ask: Terminal | None, *, is_second: bool) -> str:
    if is_second:
        return _value("--second", given, second_of, ask, _SECOND, NO)
    if given is None and ask is not None:
        names = [*(name for name, _, _ in presets()), OTHER, LOCAL]
        print("Providers (or ses-REGION; other: a server of yours; local: a mail catcher on this machine, as Mailpit):")
        print(textwrap.fill(", ".join(names), 78, initial_indent="  ", subsequent_indent="  ", break_on_hyphens=False))
    return _value("--preset", given, preset_of, ask, "Provider")


def _optional(
    given: str | None, check: Callable[[str], str], ask: Terminal | None, question: str, option: str
) -> str | None:
    """A value that may be filled in later."""
    if given is None and ask is None:
        return None
    return _value(option, given, check, ask, f"{question} (Enter: later)", "") or None


def _application(ask: Terminal) -> Iterator[tuple[str, str]]:
    """What names the application at a provider that wants access tokens."""
    for name, question in (("tenant", "Tenant (ID or domain)"), ("client_id", "Client ID of the application")):
        if found := ask.line(f"{question} (Enter: later)", "", word_of):
            yield name, found


def _secret(file: str | None, account: Account, ask: Terminal | None) -> str | None:
    """The password of an option's file, or as it is typed; None: it is filled in later. Raises CommandFailed."""
    if file is not None:
        try:
            content = sys.stdin.buffer.readline(MAX_SECRET_BYTES) if file == STDIN else read_named_file(Path(file))
            found = one_line(content.decode())
        except ValueError as error:
            # Not the error of a decoder, which quotes what it was given.
            text = "expected UTF-8" if isinstance(error, UnicodeDecodeError) else str(error)
            raise CommandFailed(printable(f"password file: {text}"), EXIT_USAGE) from None
        if not found:
            raise CommandFailed("password file: it is empty", EXIT_USAGE)
        return found
    if ask is None:
        return None
    return ask.secret(f"{'Client secret' if account.with_token else 'Password or token'} for {account.name}")


# What each answer has to be. Each raises ValueError with a sentence.


def preset_of(text: str) -> str:
    if text in (OTHER, LOCAL) or find_preset(text) is not None:
        return text
    near = nearest_preset(text)
    raise ValueError(f"there is no preset {text!r}" + (f"; did you mean {near}?" if near else ""))


def second_of(text: str) -> str:
    return NO if text in ("", NO) else preset_of(text)


def host_of(text: str) -> str:
    if text and not is_host(text):
        raise ValueError("expected a host name or an IP address, without a port")
    return text


def word_of(text: str) -> str:
    if re.fullmatch(r"[A-Za-z0-9._-]*", text) is None:
        raise ValueError("expected letters, digits, dots and dashes")
    return text


def domain_of(text: str) -> str:
    domain = ascii_domain(text)
    if "." not in domain or not is_dns_name(domain):
        raise ValueError("expected a domain such as example.com")
    return domain


def sender_of(text: str) -> str:
    compiled(text)
    if matches_no_address(text):
        raise ValueError("expected an address or a pattern such as *@otp.example.com")
    return text


def network_of(text: str) -> str:
    return str(parse_network(text))


def runner_of(text: str) -> Runner:
    for one in RUNNERS:
        if one == text:
            return one
    raise ValueError(f"expected {', '.join(RUNNERS[:-1])} or {RUNNERS[-1]}")


def listen_in(runner: Runner) -> Callable[[str], str]:
    """What an address to listen at has to be."""

    def check(text: str) -> str:
        address = parse_address(text, None)
        if runner == "compose" and not isinstance(address, TcpAddress):
            raise ValueError("expected host:port, which compose.yaml publishes")
        if text == DEFAULT_HTTP:
            raise ValueError(f"{DEFAULT_HTTP} is that of metrics and console")
        return text

    return check


def one_line(text: str) -> str:
    if not text.strip("\r\n").isprintable():
        raise ValueError("expected one line without control characters")
    return text.strip("\r\n")
