"""The processes that are forked before the relay starts: a helper for signatures, and the workers."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field

from relay.config.model import Config
from relay.observe.log_output import LogOptions
from relay.service.build import bulk_lanes
from relay.service.tracing import Sockets
from relay.signing import helper
from relay.signing.helper import HelperProcess
from relay.workers import process, spawn  # noqa: F401 - `process`: so that the workers find it imported
from relay.workers.fleet import count_of
from relay.workers.spawn import Forked


@dataclass(frozen=True, slots=True)
class Forks:
    """Without its helper the relay signs by itself. A worker that isn't here is started from the event loop."""

    helper: HelperProcess | None = None
    workers: Mapping[int, Forked] = field(default_factory=dict)
    """by number"""
    tracing: Sockets | None = None
    """None: tracing is off"""


def fork_all(config: Config, log: LogOptions) -> Forks:
    """While this process has one thread, no event loop and no open store. `log`: how workers log."""
    tracing = Sockets.if_on(os.environ)
    signs = bool(config.dkim)
    signing = helper.fork() if signs else None
    count = count_of(config) if bulk_lanes(config) else 0
    records = None if tracing is None else tracing.write
    forked = {number: spawn.fork(number, log, records, signs=signs) for number in range(1, count + 1)}
    return Forks(signing, {number: worker for number, worker in forked.items() if worker is not None}, tracing)
