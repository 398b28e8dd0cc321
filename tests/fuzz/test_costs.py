"""Every parser takes linear time, whatever a client or an upstream repeats."""

from __future__ import annotations

import os

import pytest
from hypothesis import HealthCheck, Phase, given, settings

from tests.fuzz.hostile import Shape, hold, shapes
from tests.fuzz.parsers import PARSERS

EXAMPLES = int(os.environ.get("FUZZ_EXAMPLES", "0"))
USUALLY = 60
"""examples that take a second or so"""


@pytest.mark.parametrize("name", PARSERS)
def test_time_is_in_proportion_to_size_in(name: str) -> None:
    # Shrinking an example that takes quadratic time would take too long.
    @settings(
        max_examples=EXAMPLES or USUALLY,
        deadline=None,
        suppress_health_check=list(HealthCheck),
        phases=(Phase.explicit, Phase.reuse, Phase.generate),
    )
    @given(shapes(PARSERS[name]))
    def holds(shape: Shape) -> None:
        hold(PARSERS[name], shape)

    holds()
