"""The doctor's examination: all checks of a configuration, in the order of the report."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from relay.config.errors import ConfigErrors
from relay.config.load import load
from relay.config.model import Loaded
from relay.doctor import certificates, configuration, domains, files, lanes, log, machine, rules, service, upstreams
from relay.doctor.finding import About, Finding
from relay.doctor.resolver import Resolver
from relay.mail.dkim import Signer


async def examine(
    path: Path, environ: Mapping[str, str], dns_server: tuple[str, int] | None = None
) -> tuple[Finding, ...]:
    """Load the configuration at `path` and check everything that it names. If it can't be loaded, its errors are the
    only findings.

    `dns_server`: host and port of a name server to ask instead of the machine's own.
    """
    about = About("config")
    try:
        loaded = load(path, environ)
    except ConfigErrors as errors:
        hint = "correct it, or name another with -c FILE or $OTP_RELAY_CONFIG; nothing else can be checked before"
        return tuple(about.fail(str(error), hint) for error in errors.errors)
    config = loaded.config
    of_config = await asyncio.to_thread(configuration.check, loaded)
    now = time.time()
    of_disk, of_service, of_upstreams, of_domains, of_log = await asyncio.gather(
        asyncio.to_thread(machine.check_disk, config.store, config.queue.min_free_bytes),
        service.check(config),
        upstreams.check(config, now),
        domains.check(config.dkim, Signer(config.dkim, loaded.dkim_pems), Resolver(dns_server), int(now)),
        asyncio.to_thread(log.check, config, now),
    )
    of_files = files.check(loaded)
    if not of_config:
        of_config = [about.ok(f"{loaded.path}: {configuration.summary(loaded)}")]
    return (
        *of_config,
        *_notes(loaded, of_files),
        *of_files,
        *of_disk,
        machine.check_clock(),
        *of_service,
        *certificates.check(config, now),
        *of_domains,
        *of_upstreams,
        *lanes.check(config),
        *rules.check(config.rules),
        *of_log,
    )


def _notes(loaded: Loaded, of_files: Sequence[Finding]) -> Iterator[Finding]:
    hint = "otp-relay check shows it, too; config/relay.yaml explains each key"
    files_named = [f"{one.subject};" for one in of_files if one.subject]
    for note in loaded.notes:
        # `files` and `certificates` report such a file, too, and say more.
        if "cert_file: the certificate " not in note and not any(name in note for name in files_named):
            yield About("config").warn(note, hint)
