"""The container image as far as it can be checked without an engine: its file, what it installs, its configuration.

tests/packaging/test_installed.py runs what is in it.
"""

from __future__ import annotations

import importlib.metadata
import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
from packaging.markers import Marker
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import relay
from relay.config import model
from relay.config.errors import ConfigErrors
from relay.config.load import load
from tests.packaging.programs import ROOT, program

DOCKERFILE = (ROOT / "Dockerfile").read_text()
CONTAINER = ROOT / "config/container.yaml"
PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text())
ALONE = {"RELAY_UPSTREAM": "smtp.example.com", "RELAY_USERNAME": "user", "RELAY_PASSWORD": "hunter2"}
_PIN = re.compile(r"^([A-Za-z0-9._-]+)==([^ ;\\]+)(?: ; (.+?))? \\$")


def pins(lock: str) -> dict[str, tuple[str, list[str], Marker | None]]:
    """Name → version, hashes and marker of each entry of a lock file."""
    found: dict[str, tuple[str, list[str], Marker | None]] = {}
    name = ""
    for line in (ROOT / lock).read_text().splitlines():
        if pin := _PIN.match(line):
            name = canonicalize_name(pin[1])
            found[name] = (pin[2], [], Marker(pin[3]) if pin[3] else None)
        elif line.strip().startswith("--hash="):
            found[name][1].append(line.strip(" \\").removeprefix("--hash="))
        else:
            assert line.lstrip().startswith("#"), line
    return found


def needed(requirement: Requirement, seen: set[str]) -> None:
    """The names of all that it needs on this machine, as its installed distributions say."""
    if requirement.marker is not None and not requirement.marker.evaluate({"extra": ""}):
        return
    seen.add(canonicalize_name(requirement.name))
    for text in importlib.metadata.requires(requirement.name) or ():
        further = Requirement(text)
        extras = {"", *requirement.extras}
        if further.marker is None or any(further.marker.evaluate({"extra": extra}) for extra in extras):
            further.marker = None
            if canonicalize_name(further.name) not in seen or further.extras:
                needed(further, seen)


@pytest.mark.parametrize(
    ("lock", "requirements"),
    [
        ("requirements.lock", PROJECT["project"]["dependencies"]),
        ("requirements-build.lock", PROJECT["build-system"]["requires"]),
    ],
)
def test_the_lock_file_has_a_version_that_the_project_allows(lock: str, requirements: list[str]) -> None:
    locked = pins(lock)
    for requirement in map(Requirement, requirements):
        version, hashes, _ = locked[canonicalize_name(requirement.name)]
        assert version in requirement.specifier, f"{requirement}: run tools/lock"
        assert hashes


def test_the_lock_file_has_all_that_is_needed_and_nothing_else() -> None:
    seen: set[str] = set()
    for text in PROJECT["project"]["dependencies"]:
        needed(Requirement(text), seen)
    locked = pins("requirements.lock")
    assert {name for name, (_, _, marker) in locked.items() if marker is None or marker.evaluate()} == seen
    assert all(re.fullmatch(r"sha256:[0-9a-f]{64}", one) for _, hashes, _ in locked.values() for one in hashes)
    assert all(len(hashes) >= 1 for _, hashes, _ in locked.values())


def test_the_image_has_what_it_is_built_from_and_no_root() -> None:
    copied = {name for line in re.findall(r"^COPY (?!--)(.+)$", DOCKERFILE, re.MULTILINE) for name in line.split()[:-1]}
    allowed = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    assert copied - {"config/container.yaml"} == allowed
    assert all((ROOT / name).exists() for name in copied)
    assert re.findall(r"^USER (.+)$", DOCKERFILE, re.MULTILINE) == ["1525:1525"]


def test_each_install_of_the_image_is_pinned() -> None:
    joined = DOCKERFILE.replace("\\\n", " ")
    installs = re.findall(r"pip(?: --python \S+)? (?:install|wheel) ([^&\n]+)", joined)
    assert len(installs) == 4
    for arguments in installs:
        assert "--no-deps" in arguments
        assert "--require-hashes" in arguments or "--no-index" in arguments or arguments.rstrip().endswith(" .")
    assert re.search(r"^ARG PYTHON_IMAGE=\S+:\d+\.\d+\.\d+-slim-\w+$", DOCKERFILE, re.MULTILINE)


def test_the_image_and_the_chart_have_the_projects_version() -> None:
    assert f"ARG VERSION={relay.__version__}\n" in DOCKERFILE
    chart = (ROOT / "deploy/helm/otp-relay/Chart.yaml").read_text()
    assert f"\nappVersion: {relay.__version__}\n" in chart
    for path in ("deploy/compose/compose.yaml", "deploy/kubernetes/sidecar.yaml", "deploy/kubernetes/statefulset.yaml"):
        assert f"image: otp-relay:{relay.__version__}\n" in (ROOT / path).read_text()


@pytest.mark.real
def test_hadolint_finds_nothing_in_the_dockerfile() -> None:
    assert program("hadolint", ROOT / "Dockerfile") == ""


def test_three_variables_are_a_whole_configuration() -> None:
    loaded = load(CONTAINER, ALONE)
    assert loaded.notes == ()
    upstream = loaded.config.upstreams["esp"]
    assert (upstream.host, upstream.port, upstream.tls) == ("smtp.example.com", 587, "starttls")
    assert str(loaded.config.store) == "/var/lib/otp-relay/relay.db"
    assert str(loaded.config.http.address) == "127.0.0.1:8025"
    assert {str(network) for network in loaded.config.listen[0].allow} == {"127.0.0.0/8", "172.16.0.0/12"}


VARIABLES: list[tuple[dict[str, str], str, object]] = [
    ({"RELAY_PORT": "2525"}, "upstreams.esp.port", 2525),
    ({"RELAY_TLS": "implicit"}, "upstreams.esp.port", 465),
    ({"RELAY_TLS": ""}, "upstreams.esp.tls", "starttls"),
    ({"RELAY_PRESET": "postmark", "RELAY_UPSTREAM": ""}, "upstreams.esp.host", "smtp.postmarkapp.com"),
    (
        {"RELAY_TLS": "none", "RELAY_ALLOW_PLAINTEXT": "true", "RELAY_USERNAME": "", "RELAY_PASSWORD": ""},
        "upstreams.esp.port",
        25,
    ),
    ({"RELAY_RATE": "5/s"}, "upstreams.esp.rate", 5.0),
    ({"RELAY_HOSTNAME": "relay.example.com"}, "hostname", "relay.example.com"),
    ({"RELAY_DEFAULT_LANE": "otp"}, "default_lane", "otp"),
    ({"RELAY_LOG_KEEP": "7d"}, "log.keep_s", 604800.0),
    ({"RELAY_LOG_ADDRESSES": "hashed"}, "log.addresses", "hashed"),
    ({"RELAY_LOG_FORMAT": "json"}, "log.format", "json"),
    ({"RELAY_MESSAGE_SIZE": "5MB"}, "limits.message_size_bytes", 5_000_000),
    ({"RELAY_SHUTDOWN": "10s"}, "shutdown_s", 10.0),
    ({"RELAY_WORKERS": "0"}, "workers", 0),
    ({"RELAY_REDIRECT": "staging@example.com"}, "redirect", "staging@example.com"),
    ({"RELAY_STORE": "/data/relay.db"}, "store", Path("/data/relay.db")),
    ({"RELAY_VIA": "api", "RELAY_PRESET": "resend"}, "upstreams.esp.via", "api"),
]


@pytest.mark.parametrize(("environ", "key", "value"), VARIABLES, ids=[next(iter(one[0])) for one in VARIABLES])
def test_a_variable_sets_its_key(environ: dict[str, str], key: str, value: object) -> None:
    found: Any = load(CONTAINER, {**ALONE, **environ}).config
    for name in key.split("."):
        found = found[name] if isinstance(found, dict) else getattr(found, name)
    assert found == value


def test_secrets_come_from_files_too(tmp_path: Path) -> None:
    secret = tmp_path / "password"
    secret.write_text("hunter3\n")
    secret.chmod(0o600)
    loaded = load(CONTAINER, {**ALONE, "RELAY_PASSWORD": "", "RELAY_PASSWORD_FILE": str(secret)})
    password = loaded.config.upstreams["esp"].password
    assert password is not None
    assert password.get_secret_value() == "hunter3"


@pytest.mark.parametrize(
    ("environ", "key"),
    [
        ({}, "upstreams.esp.host"),
        ({**ALONE, "RELAY_HTTP_ADDRESS": "0.0.0.0:8025"}, "http.address"),
        ({**ALONE, "RELAY_LISTEN_AUTH": "any"}, "listen.0.auth"),
        ({**ALONE, "RELAY_TLS": "none"}, "upstreams.esp.tls"),
    ],
)
def test_what_would_be_unsafe_or_of_no_use_is_refused(environ: dict[str, str], key: str) -> None:
    with pytest.raises(ConfigErrors) as refused:
        load(CONTAINER, environ)
    assert key in str(refused.value).replace("[", ".").replace("]", "")


def test_each_variable_of_the_image_is_documented() -> None:
    used = set(re.findall(r"\$\{(RELAY_\w+)", CONTAINER.read_text()))
    documented = set(re.findall(r"^\| `(RELAY_\w+)`", (ROOT / "docs/deploy.md").read_text(), re.MULTILINE))
    assert used == documented


def test_a_drain_of_the_image_is_shorter_than_what_it_gets() -> None:
    assert model.Config.model_fields["shutdown_s"].default == 20.0
    assert "${RELAY_SHUTDOWN:-20s}" in CONTAINER.read_text()
    assert "stop_grace_period: 45s" in (ROOT / "deploy/compose/compose.yaml").read_text()
