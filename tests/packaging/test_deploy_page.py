"""The commands of docs/deploy.md, as far as they need neither an engine nor a cluster."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from relay.__main__ import parser
from relay.config.load import load
from tests.packaging.programs import ROOT, program
from tests.packaging.test_kubernetes import CHART, SECRETS, config_of, manifests, one, relay_of

PAGE = (ROOT / "docs/deploy.md").read_text()
LINES = [
    line
    for block in re.findall(r"^```sh\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
    for line in block.replace("\\\n", " ").splitlines()
]
RUNS = [line for line in LINES if line.startswith("docker run ")]


@pytest.mark.parametrize("line", RUNS, ids=["alone", "hardened"])
def test_the_variables_of_a_docker_run_are_a_whole_configuration(line: str, tmp_path: Path) -> None:
    words = shlex.split(line)
    environ = dict(words[n + 1].split("=", 1) for n, word in enumerate(words) if word == "-e")
    if "RELAY_PASSWORD_FILE" in environ:
        secret = tmp_path / "esp"
        secret.write_text("hunter2")
        secret.chmod(0o600)
        mounted = [words[n + 1] for n, word in enumerate(words) if word == "--volume"]
        assert f"./secrets/esp:{environ['RELAY_PASSWORD_FILE']}:ro" in mounted
        environ["RELAY_PASSWORD_FILE"] = str(secret)
    assert load(ROOT / "config/container.yaml", environ).notes == ()
    assert set(environ) <= set(re.findall(r"\$\{(RELAY_\w+)", (ROOT / "config/container.yaml").read_text()))


def test_the_secret_that_is_made_has_every_key_that_the_chart_wants() -> None:
    (created,) = [line for line in LINES if line.startswith("kubectl create secret ")]
    assert {f"/run/secrets/otp-relay/{key}" for key in re.findall(r"--from-\w+=([\w-]+)=", created)} == SECRETS


def test_each_command_of_the_relay_on_the_page_exists() -> None:
    named = re.findall(r"(?:`|-- |exec relay )otp-relay ([a-z]+)", PAGE)
    (commands,) = (
        action.choices for action in parser()._actions if action.choices is not None and not action.option_strings
    )
    assert len(named) > 5
    assert set(named) <= {*commands, "ready"}


@pytest.mark.real
def test_the_line_that_installs_the_chart_makes_a_relay(tmp_path: Path) -> None:
    (line,) = [line for line in LINES if line.startswith("helm install ")]
    _, _, release, chart, *settings = shlex.split(line)
    assert ROOT / chart == CHART
    home = {"HELM_CACHE_HOME": str(tmp_path), "HELM_CONFIG_HOME": str(tmp_path), "HELM_DATA_HOME": str(tmp_path)}
    workload = one("StatefulSet", manifests(program("helm", "template", release, CHART, *settings, environment=home)))
    name = workload["metadata"]["name"]
    assert f"kubectl rollout status statefulset/{name}" in LINES
    assert f"kubectl exec {name}-0 -- otp-relay doctor" in LINES
    _, container = relay_of(workload)
    assert config_of(container).upstreams["esp"].host == "smtp.example.com"


def test_the_shell_understands_each_line() -> None:
    assert len(LINES) > 10
    program("bash", "-n", given="\n".join(LINES))
