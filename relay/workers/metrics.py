"""Adds up the metrics of several processes."""

from __future__ import annotations

from collections.abc import Sequence

from relay.observe.metrics import Family, latest


def add_up(processes: Sequence[Sequence[Family]]) -> Sequence[Family]:
    """The sums of counters and histograms, sample by sample."""
    sums: dict[str, dict[tuple[str, tuple[tuple[str, str], ...]], float]] = {}
    for families in processes:
        for family in families:
            samples = sums.setdefault(family.name, {})
            for name, labels, value in family.samples:
                samples[name, labels] = samples.get((name, labels), 0.0) + value
    return [
        Family(
            name,
            [(sample, labels, value) for (sample, labels), value in samples.items()],
            latest([one.exemplars for families in processes for one in families if one.name == name and one.exemplars]),
        )
        for name, samples in sums.items()
    ]
