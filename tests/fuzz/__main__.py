"""Fuzzing by hand, for as long as is wanted: `python -m tests.fuzz --minutes 60 [--only NAME ...] [--seed N]`.

Both kinds take turns: what must hold for mutated seeds of the corpus (`targets`), and what repetition costs
(`parsers`). Each finding is printed once a place, with the input; exit 1 when there was any. What is found belongs into
the corpus, or into a test.
"""

from __future__ import annotations

import argparse
import random
import sys
import time
import traceback
from collections.abc import Callable

from tests.fuzz.hostile import Shape, hold
from tests.fuzz.parsers import CORE, PARSERS
from tests.fuzz.targets import TARGETS
from tests.fuzz.test_fuzz import SEEDS, TOKENS

TURN_S = 1.0


def mutated(name: str, chance: random.Random) -> bytes:
    """A seed, or two crossed, after a few edits."""
    seeds = [path.read_bytes() for path in SEEDS[name]]
    data, other = chance.choice(seeds), chance.choice(seeds)
    if chance.random() < 0.3:
        data = data[: chance.randint(0, len(data))] + other[chance.randint(0, len(other)) :]
    for _ in range(chance.randint(0, 8)):
        at, cut = chance.randint(0, len(data)), chance.choice((0, 0, 1, 3, 12))
        piece = chance.choice(TOKENS[name]) if chance.random() < 0.8 else chance.randbytes(chance.randint(1, 4))
        data = data[:at] + piece * chance.choice((1, 1, 1, 2, 30)) + data[at + cut :]
    return data


def repeated(name: str, chance: random.Random) -> Shape:
    parser = PARSERS[name]

    def unit() -> bytes:
        return b"".join(
            chance.choice(CORE if chance.random() < 0.5 else parser.tokens)
            for _ in range(chance.choice((1, 1, 2, 2, 3, 4)))
        )

    units = [unit() for _ in range(chance.choice((1, 1, 1, 2, 3)))]
    return Shape(chance.choice(parser.starts), tuple(units), chance.choice((b"", *parser.tokens)))


def turns(chance: random.Random) -> dict[str, Callable[[], tuple[object, Callable[[], None]]]]:
    """By name: make an input, and what to do with it."""

    def target(name: str) -> tuple[object, Callable[[], None]]:
        data = mutated(name, chance)
        return data, lambda: TARGETS[name](data)

    def cost(name: str) -> tuple[object, Callable[[], None]]:
        shape = repeated(name, chance)
        return shape, lambda: hold(PARSERS[name], shape)

    return {
        **{f"target:{name}": lambda name=name: target(name) for name in TARGETS},  # type: ignore[misc]
        **{f"cost:{name}": lambda name=name: cost(name) for name in PARSERS},  # type: ignore[misc]
    }


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz")
    parser.add_argument("--minutes", type=float, default=1.0)
    parser.add_argument("--only", nargs="*", default=[], help="parts of names, as target:fields or cost:reply")
    parser.add_argument("--seed", type=int, default=random.SystemRandom().getrandbits(32))
    asked = parser.parse_args()
    found: set[tuple[str, str]] = set()
    tried: dict[str, int] = {}
    made = turns(random.Random(asked.seed))
    names = [name for name in made if not asked.only or any(part in name for part in asked.only)]
    print(f"seed {asked.seed}: {', '.join(names)}", flush=True)
    ends = time.monotonic() + asked.minutes * 60.0
    while time.monotonic() < ends:
        for name in names:
            turn_ends = time.monotonic() + TURN_S
            while time.monotonic() < min(turn_ends, ends):
                given, run = made[name]()
                tried[name] = tried.get(name, 0) + 1
                try:
                    run()
                except Exception as error:
                    frame = traceback.extract_tb(error.__traceback__)[-1]
                    where = f"{frame.filename}:{frame.lineno}" if "cost.py" not in frame.filename else str(given)[:60]
                    if (name, where) not in found:
                        found.add((name, where))
                        print(
                            f"FOUND {name}: {type(error).__name__} at {where}: {error}\n  {given!r:.2000}", flush=True
                        )
    print(f"{len(found)} found; tried: {', '.join(f'{name} {count}' for name, count in tried.items())}")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
