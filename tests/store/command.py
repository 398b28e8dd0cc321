"""`otp-relay store` run in this process, on stores of a test's own."""

from __future__ import annotations

import argparse
import os
from pathlib import Path

from relay.cli import store as command
from relay.store.sqlite.store import open_store
from tests.store.build import NOW, message, settled

CONFIG = """
store: relay.db
hostname: relay.example.com
upstreams: {sink: {host: 127.0.0.1, port: 2526, tls: none}}
lanes: {bulk: {upstreams: [sink], retry: [1m], expires: 1d}}
default_lane: bulk
"""


def run(path: Path, *words: str) -> int:
    """The exit code of `otp-relay store WORDS`, with the configuration `relay.yaml` beside the store at `path`."""
    parser = argparse.ArgumentParser()
    command.register(parser.add_subparsers())
    args = parser.parse_args(["store", *words, "-c", str(path.with_name("relay.yaml"))])
    code: int = args.run(args)
    return code


async def filled(path: Path, messages: int = 1, *, finished: int = 0) -> list[str]:
    """Put finished messages and open ones into a store. Returns the ids of the open ones."""
    store = await open_store(path, now=lambda: NOW)
    done = [message(content=os.urandom(20_000)) for _ in range(finished)]
    for each in done:
        await store.put(each, claimed=True)
    for each in done:
        await store.settle(settled(each.id))
    put = [message() for _ in range(messages)]
    for each in put:
        await store.put(each, claimed=False)
    await store.close()
    return [each.id for each in put]
