"""Builds the relay's parts from its configuration and connects them. Nothing is started here."""

from __future__ import annotations

import ssl
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from relay.config.feedback import Objective
from relay.config.model import Config, Limits, Loaded, Upstream
from relay.delivery.dispatch import Delivery, OwnLanes, targets_of, upstreams_of
from relay.delivery.engine import Engine
from relay.intake.accept import Acceptance, AcceptanceServices, ConfigState
from relay.intake.admission import Admission
from relay.intake.descriptors import fitted
from relay.intake.destination import Destination
from relay.intake.idempotency import Idempotency
from relay.intake.server import IntakeServer
from relay.intake.types import CannotListen, Settings
from relay.mail.dkim import Signer
from relay.policy.limiter import Limiter
from relay.service.arrivals import Arrivals
from relay.service.current import Current
from relay.service.effects import Effects
from relay.service.erase import Eraser
from relay.service.feedback import Feedback
from relay.service.health import RelayHealth, waiting_mail
from relay.service.host import WorkerHost
from relay.service.http import HttpService
from relay.service.linting import LintReport
from relay.service.operator import Operator
from relay.service.sending import Sending
from relay.service.suppressions import SuppressionKeeper
from relay.store.base import KnownRequests
from relay.store.codec import Codec
from relay.store.sqlite.requests import SqliteKnownRequests
from relay.upstream.limits import LocalLimits
from relay.upstream.target import Access, Target
from relay.web.backend import Backend
from relay.workers.destination import LanesAndWorkers
from relay.workers.fleet import Workers, count_of
from relay.workers.spawn import Forked
from relay.workers.transfer import Forwarder


class CannotStart(Exception):
    """The relay can't start, or can't go on with a new configuration. The text is one line for the operator."""


@dataclass(frozen=True, slots=True)
class Generation:
    """What is built from one configuration. A reload replaces it as a whole."""

    loaded: Loaded
    state: ConfigState
    signer: Signer
    limits: Mapping[str, LocalLimits]
    """sessions and rate of each upstream"""
    delivery: Delivery
    """the lanes of this process"""


class Builder:
    """Builds a `Generation` and puts it in force. Upstreams that stay keep their open sessions in the count."""

    def __init__(self, engine: Engine, forward: Callable[[], None]) -> None:
        """`forward` is called when the store holds mail for a lane of another process."""
        self.limits: Mapping[str, LocalLimits] = {}
        """in force, by upstream"""
        self._engine = engine
        self._forward = forward
        self._upstreams: Mapping[str, Upstream] = {}

    def build(self, loaded: Loaded, targets: Mapping[str, Target]) -> Generation:
        """Nothing of the result is started. `targets`: see `connectable`. Raises CannotStart."""
        config = loaded.config
        try:
            signer = Signer(config.dkim, loaded.dkim_pems)
        except ValueError as error:
            raise CannotStart(f"{loaded.places.of('dkim')}: {error}") from error
        limits = {name: self._limits_of(name, upstream) for name, upstream in config.upstreams.items()}
        own = OwnLanes(own_lanes(config), limits, lambda _lane, _at: self._forward())
        delivery = self._engine.build(loaded, targets, own)
        return Generation(loaded, ConfigState.of(config), signer, limits, delivery)

    def apply(self, generation: Generation) -> None:
        """Put its limits and its signing keys in force."""
        self.limits, self._upstreams = generation.limits, generation.loaded.config.upstreams
        for name, limits in self.limits.items():
            limits.apply(self._upstreams[name])
        self._engine.signatures.use(generation.signer)
        config = generation.loaded.config
        if config.redirect is not None:
            self._engine.log.redirected()
        self._engine.log.metrics.begin({lane: upstreams_of(config, lane) for lane in config.lanes}, objectives(config))

    def _limits_of(self, name: str, upstream: Upstream) -> LocalLimits:
        """The same account keeps its counters: during a reload, old and new lanes and the workers share them.

        An upstream with another address begins anew, so sessions that hang at the old address don't count.
        """
        before = self._upstreams.get(name)
        if before is None or _account(before) != _account(upstream):
            return LocalLimits.of(upstream)
        return self.limits[name].reconfigured(upstream)


@dataclass(frozen=True, slots=True)
class RelayParts:
    """The parts of the relay, connected with each other."""

    engine: Engine
    builder: Builder
    forwarder: Forwarder
    workers: Workers
    host: WorkerHost
    acceptance: Acceptance
    intake: IntakeServer
    health: RelayHealth
    http: HttpService
    feedback: Feedback
    suppressions: SuppressionKeeper
    requests: SqliteKnownRequests
    sending: Sending
    linting: LintReport


def connect(
    current: Current, engine: Engine, codec: Codec, forked: Mapping[int, Forked]
) -> tuple[RelayParts, Generation]:
    """The parts, and what the first configuration became. `engine` has its store open. `forked`: the
    workers that run already.

    Raises CannotStart, StoreError.
    """
    config, log, clock = current.config, engine.log, engine.clock
    forwarder = Forwarder(engine.store, own_lanes(config), lambda moved: workers.move(moved), log)
    host = WorkerHost(engine, engine.access, forwarder, config.store)
    workers = Workers(clock, log, host, codec, forked)
    suppressions = SuppressionKeeper(engine, workers, current)
    engine.report_bad_address = suppressions.report
    builder = Builder(engine, forwarder.wake)
    generation = builder.build(current.loaded, connectable(current.loaded, engine.access))
    builder.apply(generation)
    admission = Admission(config.store, lambda: current.config.queue, lambda: waiting_mail(engine, workers))
    requests = SqliteKnownRequests(config.store)
    linting = LintReport(log, engine.supervisor)
    destination = LanesAndWorkers(engine, workers)
    acceptance = _acceptance(generation.state, engine, destination, admission, requests, linting)
    intake = IntakeServer(acceptance, Settings(intake_limits(config), config.hostname), log, admit=admission.refusal)
    sending = Sending(intake, current, log)
    feedback = Feedback(current, log, engine.supervisor, Effects(engine, workers, suppressions).apply)
    health = RelayHealth(current, admission, engine, workers, intake, feedback)
    operator = Operator(engine, workers, forwarder, host.log)
    eraser = Eraser(engine, workers, forwarder, suppressions, feedback)
    backend = Backend(
        *(host.log, log.metrics, log.recent, health, operator, host.events, current, clock.now, feedback.webhooks),
        suppressions=suppressions,
        eraser=eraser,
        objectives=lambda: objectives(current.config),
        sender=sending,
    )
    http = HttpService(backend, config.http, engine.supervisor)
    feedback.on_recorded = http.wake
    arrivals = Arrivals(engine, workers, current)
    feedback.on_arrivals, feedback.on_provider = arrivals.learn, arrivals.found
    log.listeners += (feedback.nudge, http.wake)
    parts = RelayParts(
        *(engine, builder, forwarder, workers, host, acceptance, intake, health, http, feedback, suppressions),
        *(requests, sending, linting),
    )
    return parts, generation


def _acceptance(
    state: ConfigState,
    engine: Engine,
    destination: Destination,
    admission: Admission,
    requests: KnownRequests,
    linting: LintReport,
) -> Acceptance:
    services = AcceptanceServices(
        destination,
        engine.clock,
        engine.log,
        admission,
        engine.signatures.selectors,
        Limiter(engine.log, engine.hash_key),
        Idempotency(requests, engine.hash_key),
        engine.suppressions,
        engine.providers.of,
        linting.offer,
    )
    return Acceptance(state, services)


def connectable(loaded: Loaded, access: Access) -> Mapping[str, Target]:
    """The upstreams with their TLS contexts, and what their credentials come from. Reading the CAs takes 20 ms:
    while mail goes out, call it on a thread.
    Raises CannotStart."""
    try:
        return targets_of(loaded.config, access)
    except (OSError, ssl.SSLError, ValueError) as error:
        raise CannotStart(f"{loaded.places.of('upstreams')}: {error}") from error


def own_lanes(config: Config) -> Sequence[str]:
    """The lanes of the main process: the express lanes; all lanes where there are no workers."""
    bulk = bulk_lanes(config) if count_of(config) else ()
    return tuple(name for name in config.lanes if name not in bulk)


def bulk_lanes(config: Config) -> Sequence[str]:
    """The lanes that workers serve, if there are workers."""
    return tuple(name for name, lane in config.lanes.items() if not lane.express)


def objectives(config: Config) -> Mapping[str, Objective]:
    """Of the lanes that have one."""
    return {name: lane.objective for name, lane in config.lanes.items() if lane.objective is not None}


def intake_limits(config: Config) -> Limits:
    """The configured limits, lowered where the process may open too few descriptors."""
    return fitted(config.limits, sum(upstream.sessions.max for upstream in config.upstreams.values()))


def place_of(error: CannotListen, loaded: Loaded) -> str:
    """The error, with the place in the configuration that it is about."""
    return f"{loaded.places.of('listen', error.listener, error.key)}: {error}"


def _account(upstream: Upstream) -> tuple[str, int, str | None, str | None]:
    """What the limits of an upstream belong to."""
    return upstream.host, upstream.port, upstream.username, upstream.api.url
