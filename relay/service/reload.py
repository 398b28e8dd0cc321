"""SIGHUP: reads the configuration again and puts it in force, all or nothing."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from relay.config.fields import Section
from relay.config.model import Loaded
from relay.intake.types import CannotListen
from relay.logfmt import LongText, logfmt
from relay.observe.maillog import MailLog
from relay.service.build import CannotStart, RelayParts, bulk_lanes, connectable, intake_limits, own_lanes, place_of
from relay.service.current import Current
from relay.service.feedback import feedback_settings
from relay.store.base import StoreError

_LOG = logging.getLogger("relay")

RESTART_KEYS = ("store", "store_key_file", "http", "webhooks")
"""keys of the configuration that take a restart, besides `log.format`; a reload keeps what runs"""

PREPARE_WITHIN_S = 2.0
"""for the sessions of changed upstreams to be opened before the switch"""


class Reloader:
    """Replaces the configuration of running parts."""

    def __init__(self, current: Current, parts: RelayParts, log: MailLog) -> None:
        self._current = current
        self._parts = parts
        self._log = log

    async def reload(self) -> bool:
        """True: the new configuration is in force. False: it was refused, and each reason was logged."""
        from relay.config.errors import ConfigErrors
        from relay.config.load import load

        parts, running = self._parts, self._current.loaded
        try:
            read = await asyncio.to_thread(load, running.path, os.environ)
            loaded, ignored = without_restart_keys(read, running)
            targets = await asyncio.to_thread(connectable, loaded, self._parts.engine.access)
            generation = parts.builder.build(loaded, targets)
        except (ConfigErrors, CannotStart, OSError, ValueError) as error:
            return self._refused(str(error))
        config = loaded.config
        in_force = False
        try:
            # Codes go over the old sessions meanwhile.
            await generation.delivery.prepare(PREPARE_WITHIN_S)
            await parts.intake.reload(config.listen)
            in_force = True
        except CannotListen as error:
            return self._refused(place_of(error, loaded))
        finally:
            if not in_force:
                await generation.delivery.discard()
        parts.builder.apply(generation)
        parts.acceptance.state = generation.state
        parts.intake.configure(intake_limits(config), config.hostname)
        for key, place in ignored.items():
            _LOG.warning(logfmt("reload_ignored", key=key, reason=LongText(f"{place}: takes a restart")))
        self._current.replace(loaded)
        await parts.engine.replace(config, generation.delivery)
        parts.forwarder.lanes = tuple(own_lanes(config))
        await parts.workers.reload(loaded, bulk_lanes(config), parts.builder.limits)
        parts.forwarder.wake()
        await parts.linting.reload(config)
        try:
            await parts.feedback.reload(await asyncio.to_thread(feedback_settings, config, parts.engine.clock))
        except StoreError as error:
            self._log.trouble("feedback", error)
        self._log.reloaded(success=True, ignored=tuple(ignored))
        waits = ", ".join(ignored)
        self._current.reloaded(success=not ignored, reason=f"a restart is needed for {waits}" if ignored else None)
        return True

    def _refused(self, errors: str) -> bool:
        for line in errors.splitlines():
            _LOG.error(logfmt("reload_refused", reason=LongText(line)))
        self._log.reloaded(success=False)
        self._current.reloaded(success=False, reason=errors)
        return False


def without_restart_keys(read: Loaded, running: Loaded) -> tuple[Loaded, Mapping[str, str]]:
    """The configuration that was read, with the running values of RESTART_KEYS; and for each of these keys that
    differs, its place in the file."""
    differs = {
        key: read.places.of(*_difference(key, getattr(read.config, key), getattr(running.config, key)))
        for key in RESTART_KEYS
        if getattr(read.config, key) != getattr(running.config, key)
    }
    if read.store_keys != running.store_keys and "store_key_file" not in differs:
        differs["store_key_file"] = read.places.of("store_key_file")
    form = running.config.log.format
    if read.config.log.format != form:
        differs["log.format"] = read.places.of("log", "format")
    if not differs:
        return read, differs
    kept = {key: getattr(running.config, key) for key in RESTART_KEYS}
    config = read.config.model_copy(update={**kept, "log": read.config.log.model_copy(update={"format": form})})
    return replace(read, config=config, store_keys=running.store_keys, outline=_outline(read, running)), differs


def _outline(read: Loaded, running: Loaded) -> Mapping[str, Any]:
    """What is shown of the configuration that was read, with the running values of what takes a restart."""
    shown = {key: value for key, value in read.outline.items() if key not in RESTART_KEYS}
    if "log" in shown:
        shown["log"] = {**shown["log"], "format": running.config.log.format}
    return {**{key: value for key, value in running.outline.items() if key in RESTART_KEYS}, **shown}


def _difference(key: str, read: object, running: object) -> Sequence[str]:
    """The path of the first value of a key that differs."""
    if not isinstance(read, Section):
        return (key,)
    fields = type(read).model_fields
    return (key, next(name for name in fields if getattr(read, name) != getattr(running, name)))
