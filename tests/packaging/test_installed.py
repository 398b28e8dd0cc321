"""The sdist and the wheel have all that they should, and what the image holds runs as it runs there: an unprivileged
user, a read-only file system, the configuration of the image and nothing but environment variables."""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import tempfile
import venv
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.packaging.programs import ROOT
from tests.support.app import OTP, Talk, letter
from tests.support.relay import RelayProcess, get, time_line
from tests.support.upstream import Upstream

WITHIN_S = 60.0
UID = 1525
SOURCES = ("config", "deploy", "docs", "relay", "systemd", "tools")
IN_BOTH = (
    "config/container.yaml", "config/relay.yaml", "deploy/compose/compose.yaml", "deploy/grafana/otp-relay.json",
    "deploy/helm/otp-relay/Chart.yaml", "deploy/helm/otp-relay/templates/statefulset.yaml",
    "deploy/helm/otp-relay/templates/_helpers.tpl", "deploy/helm/otp-relay/templates/NOTES.txt",
    "deploy/helm/otp-relay/values.schema.json", "deploy/kubernetes/sidecar.yaml", "deploy/prometheus/alerts.yaml",
    "docs/deploy.md", "docs/operating.md", "systemd/otp-relay.service", "systemd/otp-relay.socket",
)  # fmt: skip


@dataclass(frozen=True)
class Installed:
    sdist: list[str]
    wheel: list[str]
    folder: Path
    """everyone may read it; it has `venv`"""


# What `python -m build` does, in one process: the wheel is built from what the sdist holds.
BUILD = """
import os, pathlib, shutil, sys
from setuptools import build_meta
folder = pathlib.Path(sys.argv[1])
for name in ("dist", "unpacked"):
    (folder / name).mkdir()
sdist = build_meta.build_sdist(str(folder / "dist"))
shutil.unpack_archive(folder / "dist" / sdist, folder / "unpacked", filter="data")
os.chdir(next((folder / "unpacked").iterdir()))
build_meta.build_wheel(str(folder / "dist"))
"""


def run(*arguments: str | Path, cwd: Path) -> None:
    ended = subprocess.run(
        [*map(str, arguments)], cwd=cwd, capture_output=True, text=True, timeout=WITHIN_S, check=False
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr


@pytest.fixture(scope="module")
def installed() -> Iterator[Installed]:
    """Built from a copy of the checkout, and installed into a venv that finds the dependencies in this one."""
    folder = Path(tempfile.mkdtemp(prefix="otp-relay-"))
    folder.chmod(0o755)
    source = folder / "source"
    source.mkdir()
    for name in SOURCES:
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    for path in ROOT.iterdir():
        if path.is_file() and path.name != ".git":
            shutil.copy2(path, source)
    run(sys.executable, "-c", BUILD, folder, cwd=source)
    (sdist,) = folder.glob("dist/*.tar.gz")
    (wheel,) = folder.glob("dist/*.whl")
    venv.create(folder / "venv", with_pip=False, symlinks=True)
    run(sys.executable, "-m", "pip", "-q", "--python", folder / "venv/bin/python", "install", "--no-index", "--no-deps",
        "--no-compile", wheel, cwd=folder)  # fmt: skip
    (packages,) = folder.glob("venv/lib/python*/site-packages")
    (packages / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")
    with tarfile.open(sdist) as archive, zipfile.ZipFile(wheel) as zipped:
        yield Installed(archive.getnames(), zipped.namelist(), folder)
    shutil.rmtree(folder)


def test_the_sdist_has_what_a_packager_needs(installed: Installed) -> None:
    names = {name.partition("/")[2] for name in installed.sdist}
    wanted = {
        "CHANGELOG.md", "Dockerfile", ".dockerignore", "LICENSE", "README.md", "SECURITY.md", "pyproject.toml",
        "requirements.lock", "requirements-build.lock", "relay/__main__.py", "tools/lock",
    }  # fmt: skip
    assert names >= wanted | set(IN_BOTH)
    assert not [name for name in names if name.startswith(("tests/", ".venv", "data/")) or name.endswith(".pyc")]


def test_the_wheel_has_an_example_for_everything(installed: Installed) -> None:
    share = "otp_relay-0.1.0.data/data/share/otp-relay/"
    named = {name.removeprefix(share) for name in installed.wheel if name.startswith(share)}
    assert named >= set(IN_BOTH)
    shipped = {
        str(path.relative_to(ROOT))
        for folder in ("config", "deploy", "docs", "systemd")
        for path in (ROOT / folder).rglob("*")
        if path.is_file()
    }
    assert shipped - named == set()
    assert all((installed.folder / "venv/share/otp-relay" / name).is_file() for name in IN_BOTH)


def test_the_wheel_has_every_file_of_the_package(installed: Installed) -> None:
    package = {
        str(path.relative_to(ROOT))
        for path in (ROOT / "relay").rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert package - set(installed.wheel) == set()


async def test_the_installed_command_is_the_wheels(installed: Installed) -> None:
    asks = "import relay; print(relay.__file__)"
    process = await asyncio.create_subprocess_exec(
        installed.folder / "venv/bin/python", "-c", asks, cwd=installed.folder, stdout=asyncio.subprocess.PIPE
    )
    out, _ = await asyncio.wait_for(process.communicate(), WITHIN_S)
    assert out.decode().startswith(str(installed.folder / "venv"))


# What the engine does for a container with --read-only, --cap-drop ALL, --user and --tmpfs /tmp. `$1` is the folder.
CONTAIN = f"""
mount --bind "$1/data" "$1/data" && mount -t tmpfs -o mode=1777 tmpfs "$1/tmp" && mount -o remount,ro,bind / || exit 77
touch "$1/readonly" 2>/dev/null && exit 77
cd "$1/data" && shift
exec setpriv --reuid {UID} --regid {UID} --clear-groups --no-new-privs --inh-caps=-all --bounding-set=-all "$@"
"""


def contained(folder: Path, *arguments: str | Path) -> list[str]:
    return [
        "unshare", "--mount", "--propagation", "private", "sh", "-c", CONTAIN, "sh", str(folder), *map(str, arguments)
    ]  # fmt: skip


@pytest.fixture
def container(installed: Installed) -> Path:
    """The installed relay's folder with the places of the image: `etc`, `data`, `tmp`."""
    if os.geteuid() != 0 or shutil.which("unshare") is None or shutil.which("setpriv") is None:
        pytest.skip("only root can run it as another user on a read-only file system (unshare, setpriv)")
    folder = installed.folder
    for name in ("etc", "data", "tmp"):
        shutil.rmtree(folder / name, ignore_errors=True)
        (folder / name).mkdir()
    os.chown(folder / "data", UID, UID)
    (folder / "data").chmod(0o700)
    shutil.copy2(ROOT / "config/container.yaml", folder / "etc/relay.yaml")
    tried = subprocess.run(
        contained(folder, folder / "venv/bin/python", "-c", "import yaml"), timeout=WITHIN_S, check=False
    )
    if tried.returncode in (1, 77, 126, 127):
        pytest.skip("may not mount here, or another user may not read this Python")
    assert tried.returncode == 0
    return folder


@pytest.mark.fresh
async def test_the_image_delivers_mail_with_variables_only_as_a_user_on_a_read_only_file_system(
    container: Path,
) -> None:
    async with Upstream(auth={"user": "hunter2"}) as upstream:
        environment = {
            "RELAY_UPSTREAM": upstream.host,
            "RELAY_PORT": str(upstream.port),
            "RELAY_TLS": "none",
            "RELAY_USERNAME": "user",
            "RELAY_PASSWORD": "hunter2",
            "RELAY_OTP_SENDERS": "*@auth.example.com",
            "RELAY_LISTEN": "127.0.0.1:0",
            "RELAY_HTTP_ADDRESS": "127.0.0.1:0",
            "RELAY_STORE": str(container / "data/relay.db"),
            "RELAY_WORKERS": "1",
            "TMPDIR": str(container / "tmp"),
            "PYTHONDONTWRITEBYTECODE": "1",
        }
        program = contained(container, container / "venv/bin/otp-relay")
        async with RelayProcess(container / "etc/relay.yaml", environment, program=program) as relay:
            assert os.stat(f"/proc/{relay.pid}").st_uid == UID
            assert (await get(relay, "/readyz")).status == 200
            async with Talk(relay.smtp) as app:
                code = await app.submit(letter("Your code is 123456", sender=OTP), OTP, "a@example.net")
                news = await app.submit(letter(), "news@example.com", "b@example.net")
            lanes = [(await time_line(relay, one, "sent"))["lane"] for one in (code, news)]
            assert lanes == ["otp", "bulk"]
            assert await relay.terminate() == 0
        assert sorted(one.recipients[0] for one in upstream.messages) == ["a@example.net", "b@example.net"]
    owners = {path.stat().st_uid for path in (container / "data").iterdir()}
    assert owners == {UID}
