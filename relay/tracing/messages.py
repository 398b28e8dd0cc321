"""What the main process and the tracing process say to each other, on a socket of their own: packets of JSON.

Records come by another socket, from all processes of the relay (`observe.tracing`).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

MOST_BYTES = 65_536
RESULTS = ("exported", "failed", "dropped")


def stop_packet(within_s: float) -> bytes:
    """To the tracing process: export what there is, and end within that time."""
    return json.dumps({"stop": within_s}).encode()


def read_stop(packet: bytes) -> float | None:
    """How long it has; None: it is another packet, or can't be read."""
    found = _read(packet).get("stop")
    return float(found) if isinstance(found, int | float) else None


def counts_packet(counts: Mapping[str, int]) -> bytes:
    """To the main process: spans since the last one, by RESULTS."""
    return json.dumps(counts).encode()


def read_counts(packet: bytes) -> Mapping[str, int]:
    """Those that are well formed."""
    found = _read(packet)
    return {name: count for name in RESULTS if isinstance(count := found.get(name), int) and count > 0}


def _read(packet: bytes) -> dict[str, Any]:
    try:
        found = json.loads(packet)
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}
