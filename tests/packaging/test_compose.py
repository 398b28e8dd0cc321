"""deploy/compose: what the file says, without an engine."""

from __future__ import annotations

import re
import subprocess
import sys
from typing import Any

import pytest
import yaml

from relay.config.load import load
from tests.packaging.programs import ROOT, WITHIN_S

FOLDER = ROOT / "deploy/compose"
COMPOSE: dict[str, Any] = yaml.safe_load((FOLDER / "compose.yaml").read_text())
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]


def test_the_file_is_valid_by_the_schema_of_compose() -> None:
    ended = subprocess.run(
        [sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.compose-spec", FOLDER / "compose.yaml"],
        capture_output=True, text=True, timeout=WITHIN_S, check=False,
    )  # fmt: skip
    assert ended.returncode == 0, ended.stdout


@pytest.mark.parametrize("name", SERVICES)
def test_a_service_is_pinned_hardened_checked_and_on_this_machine_only(name: str) -> None:
    service = SERVICES[name]
    assert re.search(r":v?\d+\.\d+\.\d+$", service["image"])
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert service["healthcheck"]["test"][0] == "CMD"
    assert all(port.startswith("127.0.0.1:") for port in service["ports"])


def test_the_files_that_are_mounted_exist() -> None:
    mounted = [
        volume.partition(":")[0]
        for service in SERVICES.values()
        for volume in service.get("volumes", ())
        if volume.startswith(".")
    ]
    assert len(mounted) == 5
    assert all((FOLDER / path).exists() for path in mounted)
    assert (FOLDER / SERVICES["relay"]["build"]["context"] / "Dockerfile").is_file()


def test_the_relay_takes_its_variables_and_the_clients_of_the_composed_network() -> None:
    environ = {name: re.sub(r"\$\{.*\}", "", value) for name, value in SERVICES["relay"]["environment"].items()}
    config = load(ROOT / "config/container.yaml", {**environ, "RELAY_HTTP_TOKEN": "hunter2"}).config
    (subnet,) = COMPOSE["networks"]["default"]["ipam"]["config"]
    assert subnet["subnet"] in map(str, config.listen[0].allow)
    assert config.upstreams["esp"].host in SERVICES
    assert float(SERVICES["relay"]["stop_grace_period"].removesuffix("s")) > config.shutdown_s


def test_prometheus_scrapes_the_relay_with_its_token_and_has_the_alerts() -> None:
    scraped = yaml.safe_load((FOLDER / "prometheus.yaml").read_text())
    (job,) = scraped["scrape_configs"]
    assert job["job_name"] == "otp-relay"
    assert job["static_configs"] == [{"targets": ["relay:8025"]}]
    assert job["authorization"]["credentials_file"] == f"/run/secrets/{SERVICES['prometheus']['secrets'][0]}"
    assert any(f"/etc/prometheus/{scraped['rule_files'][0]}" in one for one in SERVICES["prometheus"]["volumes"])
