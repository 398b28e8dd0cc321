"""Whether each express lane has a second upstream that works when the first is down. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from relay.config.access import endpoint
from relay.config.model import Config, Upstream
from relay.doctor.finding import About, Finding
from relay.doctor.ports import preset_name
from relay.doctor.wording import counted, listed, span
from relay.providers.registry import PROVIDERS, provider_of


def check(config: Config) -> Iterator[Finding]:
    """A finding for each express lane, and for each rule that leaves it fewer upstreams."""
    for lane, keys in config.lanes.items():
        if keys.express:
            yield _failover(About("lane", lane, "lane-failover"), keys.upstreams, config, keys.expires_s)
    for rule in config.rules:
        if rule.upstreams is not None and config.lanes[rule.lane].express:
            about = About("rule", rule.name, "lane-failover")
            life_s = min(rule.expires_s or config.lanes[rule.lane].expires_s, config.lanes[rule.lane].expires_s)
            yield _failover(about, rule.upstreams, config, life_s)


def _failover(about: About, names: Sequence[str], config: Config, life_s: float) -> Finding:
    where = f"lanes.{about.subject}.upstreams" if about.area == "lane" else f"upstreams of rule {about.subject}"
    hint = f"add an upstream at another provider to {where}"
    means = f"while that is down, codes wait, and expire after {span(life_s)}"
    if len(names) == 1:
        return about.warn(f"one upstream only ({names[0]}): {means}", hint)
    shared = _shared([config.upstreams[name] for name in names])
    if shared is not None:
        return about.warn(f"{listed(names)} are all at {shared}, which is no second way: {means}", hint)
    return about.ok(f"{counted(len(names), 'upstream')}, not all at one host or provider: {listed(names)}")


def _shared(upstreams: Sequence[Upstream]) -> str | None:
    """The host or the provider that all of them have; None: there is none."""
    common = set.intersection(*(places(one) for one in upstreams))
    return min(common) if common else None


def places(upstream: Upstream) -> set[str]:
    """What an upstream is down with: hosts and provider. With `via: auto` either of its ways may be up."""
    hosts = {upstream.host.lower()} if upstream.via == "smtp" else set()
    if upstream.via == "api" and upstream.api.url is not None:
        hosts = {endpoint(upstream.api.url).host.lower()}
    return hosts | {name for name in (_provider(upstream),) if name is not None}


def _provider(upstream: Upstream) -> str | None:
    if (name := preset_name(upstream)) is not None and (known := provider_of(name)) is not None:
        return known.name
    kind = upstream.api.kind if upstream.via != "smtp" else None
    return next((one.name for one in PROVIDERS if one.api == kind), kind) if kind is not None else None
