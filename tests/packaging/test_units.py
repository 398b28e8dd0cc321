"""The systemd units."""

from __future__ import annotations

import configparser
import sys
from pathlib import Path

import pytest

from relay.config import model
from tests.packaging.programs import ROOT, program

UNITS = ROOT / "systemd"
SERVICE = UNITS / "otp-relay.service"


def test_the_unit_gives_a_drain_more_time_than_it_takes() -> None:
    unit = configparser.ConfigParser(strict=False, interpolation=None)
    unit.optionxform = str  # type: ignore[assignment,method-assign]
    unit.read(SERVICE)
    service = unit["Service"]
    assert float(service["TimeoutStopSec"].removesuffix("s")) > model.Config.model_fields["shutdown_s"].default
    assert service["ExecStart"] == "/opt/otp-relay/bin/otp-relay run -c /etc/otp-relay/relay.yaml"
    assert service["RestartPreventExitStatus"] == "2"


def test_the_unit_leaves_no_core_file() -> None:
    """It would hold mail and keys."""
    assert {"LimitCORE=0", "WatchdogSignal=SIGKILL"} <= set(SERVICE.read_text().splitlines())


@pytest.mark.real
@pytest.mark.parametrize("name", [path.name for path in sorted(UNITS.glob("otp-relay.*"))])
def test_systemd_understands_every_line_of_a_unit(name: str, tmp_path: Path) -> None:
    for path in UNITS.glob("otp-relay.*"):
        # It looks for the program, too.
        text = path.read_text().replace("/opt/otp-relay/bin/otp-relay", sys.executable)
        (tmp_path / path.name).write_text(text)
    assert program("systemd-analyze", "verify", "--man=no", tmp_path / name) == ""


@pytest.mark.real
def test_systemd_rates_the_exposure_of_the_service_at_1_5_or_less() -> None:
    program("systemd-analyze", "security", "--no-pager", "--offline=true", "--threshold=15", SERVICE)
