"""The whole examination: every check of a configuration, in the order in which it is told."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

from relay.config.errors import ConfigErrors
from relay.config.load import load
from relay.config.model import Config, Loaded
from relay.config.private_keys import contradictions
from relay.doctor import domains, files, machine, service, upstreams
from relay.doctor.finding import Finding
from relay.doctor.resolver import Resolver
from relay.intake.users import UsersError, read_users
from relay.mail.dkim import Signer


async def examine(
    path: Path, environ: Mapping[str, str], dns_server: tuple[str, int] | None = None
) -> tuple[Finding, ...]:
    """Load the configuration at `path` and check all that it names. Where it can't be loaded, that is all there is.

    `dns_server`: host and port of the name server to ask in place of the machine's own.
    """
    try:
        loaded = load(path, environ)
    except ConfigErrors as errors:
        hint = "correct it, or name another with -c FILE or $OTP_RELAY_CONFIG; nothing else can be checked before"
        return tuple(Finding("config", "", "fail", str(error), hint) for error in errors.errors)
    config = loaded.config
    now = time.time()
    of_disk, of_service, of_upstreams, of_domains = await asyncio.gather(
        asyncio.to_thread(machine.check_disk, config.store, config.queue.min_free_bytes),
        service.check(config),
        upstreams.check(config, now),
        domains.check(config.dkim, Signer(config.dkim, loaded.dkim_pems), Resolver(dns_server), int(now)),
    )
    of_files = files.check(loaded)
    trouble = [*_users(config), *await asyncio.to_thread(_damaged, loaded)]
    return (
        *_config(loaded, trouble, of_files),
        *trouble,
        *of_files,
        *of_disk,
        machine.check_clock(),
        *of_service,
        *of_domains,
        *of_upstreams,
    )


def _damaged(loaded: Loaded) -> list[Finding]:
    hint = "otp-relay keygen makes another; publish it under a new selector"
    return [Finding("config", "dkim", "warn", text, hint) for text in contradictions(loaded.dkim_pems)]


def _users(config: Config) -> Iterator[Finding]:
    paths = {one.users_file for one in config.listen if one.auth == "required" and one.users_file is not None}
    for path in sorted(paths):
        try:
            read_users(path)
        except UsersError as error:
            yield Finding("config", "users_file", "fail", str(error), "otp-relay user add makes such a file")


def _config(loaded: Loaded, trouble: list[Finding], of_files: list[Finding]) -> Iterator[Finding]:
    if not trouble:
        config = loaded.config
        counts = (
            (len(config.upstreams), "upstream"),
            (len(config.lanes), "lane"),
            (len(config.rules), "rule"),
            (len(loaded.dkim_pems), "DKIM key"),
        )
        told = ", ".join(f"{number} {noun}{'' if number == 1 else 's'}" for number, noun in counts)
        yield Finding("config", "", "ok", f"{loaded.path}: {told}")
    for note in loaded.notes:
        # A file that is open to others is told once, by `files`, which says more.
        if not any(one.subject and f"{one.subject};" in note for one in of_files):
            yield Finding(
                "config", "", "warn", note, "otp-relay check says it too; config/relay.yaml explains each key"
            )
