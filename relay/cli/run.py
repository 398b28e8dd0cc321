"""`otp-relay run`: the relay itself."""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Mapping

    from relay.config.model import Loaded
    from relay.service.forks import Forks

EXIT_FAILED = 1
WHAT_TO_DO = 'it was left as it is; docs/operating.md, "A damaged store", says what to do'


def register(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    from relay.cli.common import add_config

    parser = subparsers.add_parser("run", help="run the relay", description="Runs the relay until SIGTERM.")
    add_config(parser)
    parser.add_argument(
        "--log-level",
        choices=("debug", "info", "warning", "error"),
        default="info",
        help="the least level of lines on stderr (default: info, a line for every message accepted and sent)",
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    import gc

    gc.disable()  # until `ready`: objects made before then are never freed
    from relay.prctl import undumpable

    undumpable()
    signals = _Signals()
    import asyncio
    import traceback

    import uvloop

    from relay.cli.common import config_path, load_or_exit
    from relay.observe import log_output
    from relay.service.forks import fork_all

    loaded = load_or_exit(config_path(args))
    options = log_output.LogOptions(args.log_level.upper(), loaded.config.log.format)
    forks = fork_all(loaded.config, options)
    log_output.configure(sys.stderr, options)  # it has a thread: behind the forks
    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            return runner.run(_run(loaded, forks, signals))
    except Exception:  # noqa: BLE001 - a traceback as Python prints it, without blocking when nothing reads it
        log_output.print_line(traceback.format_exc().rstrip())
        return EXIT_FAILED
    finally:
        log_output.close()
        signals.ignore()


class _Signals:
    """Handles SIGTERM and SIGINT (stop) and SIGHUP (reload) until the process ends. The event loop's own handlers would
    end with the loop, and a later signal would kill the process."""

    def __init__(self) -> None:
        import signal

        self._loop: asyncio.AbstractEventLoop | None = None
        self._events: Mapping[int, asyncio.Event] = {}
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, self._came)

    def hear(self) -> tuple[asyncio.Event, asyncio.Event]:
        """Events of the running loop, set by the signals to stop and to reload."""
        import asyncio
        import signal

        stop, reload = asyncio.Event(), asyncio.Event()
        self._loop = asyncio.get_running_loop()
        self._events = {signal.SIGTERM: stop, signal.SIGINT: stop, signal.SIGHUP: reload}
        return stop, reload

    def ignore(self) -> None:
        """Until the process ends: Python restores the default of handled signals at its end."""
        import signal

        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN)

    def _came(self, number: int, _: object) -> None:
        import os
        import signal

        if self._loop is None:
            # Nothing is open yet. An exception could be swallowed by an import (Python 3.11's __set_name__).
            if number != signal.SIGHUP:
                os._exit(0)
        elif not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._events[number].set)


async def _run(loaded: Loaded, forks: Forks, signals: _Signals) -> int:
    import asyncio
    import gc

    from relay.observe import log_output
    from relay.service.app import App
    from relay.service.build import CannotStart
    from relay.store.base import StoreDamaged, StoreError, StoreSealed
    from relay.supervise import listen_to

    def ready() -> None:
        log_output.print_line(f"ready smtp={','.join(app.smtp_addresses)} http={app.http_address}")
        # Frozen objects are never looked at again. A full collection then holds up codes for 1 ms instead of 30.
        gc.freeze()
        gc.enable()

    stop, reload = signals.hear()
    app = App(loaded, forks)
    listen_to(asyncio.get_running_loop(), app.log.loop_failed)
    try:
        async with app:
            if not stop.is_set():
                await app.run(ready, stop, reload)
    except CannotStart as error:
        log_output.print_line(f"otp-relay: {error}")
        return EXIT_FAILED
    except StoreDamaged as error:  # not a mistake in the configuration
        log_output.print_line(f"otp-relay: {error}; {WHAT_TO_DO}")
        return EXIT_FAILED
    except StoreError as error:
        place = loaded.places.of("store_key_file" if isinstance(error, StoreSealed) else "store")
        log_output.print_line(f"otp-relay: {place}: {error}")
        return EXIT_FAILED
    return 0
