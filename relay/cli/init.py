"""`otp-relay init`: ask, then write a configuration, DKIM keys, and the DNS records to publish."""

from __future__ import annotations

import argparse
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from relay.cli.common import EXIT_OK, EXIT_USAGE, NOT_READ, CommandFailed, add_config, printable, set_command

if TYPE_CHECKING:
    from relay.setup.folder import NewFile
    from relay.setup.plan import Plan

DEFAULT_OUT = Path("otp-relay")
CONFIG, RECORDS = "relay.yaml", "dns.txt"
RUNNERS = ("systemd", "compose", "plain")


def register(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = subparsers.add_parser(
        "init",
        help="ask, then write a configuration, DKIM keys and DNS records",
        description="Asks, then writes into a folder: relay.yaml, its schema for editors, DKIM keys, dns.txt with the "
        "records to publish, files for the secrets (mode 0600), and a unit for systemd or a compose file. It "
        "overwrites nothing. A secret is never shown. With --yes it asks nothing: what isn't given has its default, or "
        "a placeholder that it names. Exit 0: written; 2: not, and nothing is left behind.",
    )
    add = parser.add_argument
    add("--preset", metavar="P", help="the provider: see `otp-relay presets`; other: a server of yours; local: Mailpit")
    add("--host", metavar="HOST", help="with --preset other or ses: the server")
    add("--username", metavar="NAME", help="at the provider")
    add("--password-file", metavar="FILE", help="a file with the password in one line; - is stdin")
    add("--second", metavar="P", help="a second provider, which takes over from the first")
    add("--second-username", metavar="NAME", help="at the second provider")
    add("--second-password-file", metavar="FILE", help="as --password-file")
    add("--domain", metavar="D", help="of your From addresses: it gets the DKIM keys")
    add("--sender", metavar="A", action="append", help="a From address of codes, or a pattern as *@otp.example.com")
    add("--listen", metavar="ADDRESS", help="where apps submit mail (default: 127.0.0.1:2525)")
    add("--allow", metavar="NET", action="append", help="a network of the apps, if --listen isn't this machine")
    add(
        "--run",
        dest="runner",
        choices=RUNNERS,
        metavar="|".join(RUNNERS),
        help="what starts the relay (default: plain)",
    )
    add("--out", metavar="DIR", type=Path, default=DEFAULT_OUT, help=f"the folder (default: {DEFAULT_OUT})")
    add("--yes", action="store_true", help="ask nothing")
    add("--no-doctor", action="store_true", help="don't ask DNS and the providers at the end")
    add_config(parser, NOT_READ)
    set_command(parser, init)


def init(args: argparse.Namespace) -> int:
    """Exit 0, also where `doctor` finds something; or 2, and nothing is left behind."""
    from relay.cli.init_answers import plan_for
    from relay.setup.folder import Exists, first_existing, move, staged

    out: Path = args.out.absolute()
    _refuse_to_overwrite(out, (CONFIG, RECORDS, "data"))
    plan = plan_for(args)
    files = _files(plan)
    if (found := first_existing(out, files)) is not None:
        _refuse_to_overwrite(out, (str(found.relative_to(out)),))
    try:
        with staged(out, files, ("data",) if plan.runner == "compose" else ()) as folder:
            _check(folder / CONFIG)
            move(folder, out)
    except Exists as error:
        raise CommandFailed(f"{error} exists; nothing is written", EXIT_USAGE) from None
    except OSError as error:
        raise CommandFailed(f"{error.filename or out}: {error.strerror}", EXIT_USAGE) from None
    _tell(args, plan, out, files)
    return EXIT_OK


def _refuse_to_overwrite(out: Path, names: tuple[str, ...]) -> None:
    """Raises CommandFailed."""
    import os

    if os.path.lexists(out) and not out.is_dir():
        raise CommandFailed(f"{out} is no folder; name another with --out", EXIT_USAGE)
    for name in names:
        if os.path.lexists(out / name):
            raise CommandFailed(f"{out / name} exists; nothing is written. Name another folder with --out", EXIT_USAGE)


def _files(plan: Plan) -> dict[str, NewFile]:
    """Everything that is written, by its path in the folder."""
    from relay.cli.schema import text as schema_text
    from relay.setup import starting
    from relay.setup.dkim_keys import file_name, new_key, pem_of
    from relay.setup.dns_text import dns_text
    from relay.setup.folder import NewFile
    from relay.setup.plan import PLACEHOLDER, SELECTORS
    from relay.setup.yaml_text import SCHEMA_FILE, relay_yaml

    keys = {selector: new_key(is_ed25519=is_ed25519) for selector, is_ed25519 in SELECTORS}
    files = {
        CONFIG: NewFile(relay_yaml(plan).encode()),
        SCHEMA_FILE: NewFile(schema_text().encode()),
        RECORDS: NewFile(dns_text(plan, keys).encode()),
    }
    for selector, key in keys.items():
        files[f"keys/{file_name(plan.domain, selector)}"] = NewFile(pem_of(key), is_secret=True)
    for one in plan.accounts:
        if one.has_secret:
            files[f"secrets/{one.name}"] = NewFile(f"{one.secret or PLACEHOLDER}\n".encode(), is_secret=True)
    if plan.runner == "systemd":
        files[starting.UNIT] = NewFile(starting.unit_text(plan).encode())
    elif plan.runner == "compose":
        files[starting.COMPOSE] = NewFile(starting.compose_text(plan).encode())
    return files


def _check(path: Path) -> None:
    """What the relay would refuse is never left behind. Raises CommandFailed."""
    import os

    from relay.config.errors import ConfigErrors
    from relay.config.load import load

    try:
        # Not as a service that is running this: the secrets are beside the file.
        load(path, {name: value for name, value in os.environ.items() if name != "CREDENTIALS_DIRECTORY"})
    except ConfigErrors as errors:
        texts = "\n".join(f"{one.key}: {one.message}" for one in errors.errors)
        raise CommandFailed(printable(f"nothing is written: {texts}"), EXIT_USAGE) from None


def _tell(args: argparse.Namespace, plan: Plan, out: Path, files: dict[str, NewFile]) -> None:
    """Print what was written, whether it is right, what to publish, and what to do next."""
    config = out / CONFIG
    print(f"\nWritten to {out}:")
    print("\n".join(f"  {name}{'  (0600)' if new.is_secret else ''}" for name, new in sorted(files.items())))
    print()
    _run_command("check", config)
    print(f"\nPublish these DNS records ({out / RECORDS}):\n")
    print((out / RECORDS).read_text())
    if plan.unfilled:
        print("Fill in before the first start:")
        print("".join(f"  {out}/{one}\n" for one in plan.unfilled))
    elif not args.no_doctor:
        print("otp-relay doctor (until the records are published, it misses them):\n")
        sys.stdout.flush()
        _run_command("doctor", config)
        print()
    print("Next:")
    print("\n".join(f"  {line}" for line in _next(plan, out)))


def _run_command(name: str, config: Path) -> None:
    """Run another command in this process. Its exit code doesn't matter here, and Ctrl-C ends it alone: everything is
    written by now."""
    import importlib

    module = {"check": "config"}.get(name, name)
    parser = argparse.ArgumentParser(prog="otp-relay")
    importlib.import_module(f"relay.cli.{module}").register(parser.add_subparsers())
    args = parser.parse_args([name, "-c", str(config)])
    try:
        args.run(args)
    except SystemExit:
        pass
    except KeyboardInterrupt:
        print("\n(ended by Ctrl-C)")


def _next(plan: Plan, out: Path) -> list[str]:
    """The commands that start the relay and try it."""
    from relay.setup import starting

    folder, config = shlex.quote(str(out)), shlex.quote(str(out / CONFIG))
    to = f"otp-relay send-test you@{plan.domain} -c"
    if plan.runner == "compose":
        run = f"docker compose -f {shlex.quote(str(out / starting.COMPOSE))}"
        inside = f"{starting.INSTALLED}/{CONFIG}"
        ready = f"{run} exec otp-relay otp-relay"
        return [
            f"{run} up -d",
            f"{ready} ready --wait 30s -c {inside}",
            f"{ready} send-test you@{plan.domain} -c {inside}",
        ]
    if plan.runner == "systemd":
        installed = f"{starting.INSTALLED}/{CONFIG}"
        copy = (
            [f"sudo cp -r --preserve=mode {folder}/. {starting.INSTALLED}/"] if str(out) != starting.INSTALLED else []
        )
        return [
            *copy,
            f"sudo install -m 0644 {starting.INSTALLED}/{starting.UNIT} /etc/systemd/system/",
            "sudo systemctl daemon-reload && sudo systemctl enable --now otp-relay",
            f"sudo {starting.program()} ready --wait 30s -c {installed}",
            f"sudo {starting.program()} send-test you@{plan.domain} -c {installed}",
        ]
    return [f"otp-relay run -c {config}", f"{to} {config}"]
