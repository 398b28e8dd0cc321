"""The days that certificates are good for: of upstreams, and of the relay's own listeners."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from relay.config.model import Config
from relay.config.network import AnyAddress
from relay.doctor.finding import About, Finding
from relay.doctor.wording import counted

WARN_DAYS = 14
_DAY_S = 86400
_RENEW = "renew it, then reload the relay (SIGHUP)"


def good_for(days: int) -> str:
    """The end of a sentence about a certificate that isn't past its end."""
    return f"certificate good for {counted(days, 'day')}"


def check(config: Config, now: float) -> list[Finding]:
    """Of each listener that speaks TLS itself. `now`: seconds since the epoch. Reads files."""
    return [_listener(address, path, now) for address, path in dict.fromkeys(_files(config))]


def _files(config: Config) -> Iterator[tuple[AnyAddress, Path]]:
    for listener in config.listen:
        if listener.tls != "none" and listener.cert_file is not None:
            yield listener.address, listener.cert_file
    webhooks = config.webhooks
    if webhooks.address is not None and webhooks.cert_file is not None:
        yield webhooks.address, webhooks.cert_file


def _listener(address: AnyAddress, path: Path, now: float) -> Finding:
    about = About("listener", str(address), "listener-certificate")
    from cryptography import x509

    try:
        chain = x509.load_pem_x509_certificates(path.read_bytes())
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else "no certificates in PEM form"
        return about.unknown(f"{path} was not read: {reason}", "run doctor as the relay's user")
    # A client needs the whole chain, so the one that ends first counts.
    ends_at = min(one.not_valid_after_utc.timestamp() for one in chain)
    begins_at = max(one.not_valid_before_utc.timestamp() for one in chain)
    days = int((ends_at - now) // _DAY_S)
    if ends_at <= now:
        return about.fail(f"{path}: certificate expired {counted(-days, 'day')} ago: clients refuse it", _RENEW)
    if begins_at > now:
        return about.fail(f"{path}: certificate not valid yet: clients refuse it", "check the clock, or wait")
    text = f"{path}: {good_for(days)}"
    if days < WARN_DAYS:
        return about.warn(text, _RENEW)
    return about.ok(text)
