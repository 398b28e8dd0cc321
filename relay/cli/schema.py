"""`otp-relay schema`: the configuration's JSON Schema, for editors."""

from __future__ import annotations

import argparse
import sys
from importlib import resources

from relay.cli.common import EXIT_OK, NOT_READ, add_config, set_command


def register(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = subparsers.add_parser(
        "schema",
        help="print the configuration's JSON Schema",
        description="Prints the configuration's JSON Schema (2020-12). An editor with the YAML language server checks "
        "a file that begins with `# yaml-language-server: $schema=FILE`.",
    )
    add_config(parser, NOT_READ)
    set_command(parser, schema)


def text() -> str:
    """The schema as a file. It is made from the model by `python -m tools.generate`."""
    return resources.files("relay.config").joinpath("schema.json").read_text(encoding="utf-8")


def schema(args: argparse.Namespace) -> int:  # noqa: ARG001
    """Exit 0."""
    sys.stdout.write(text())
    return EXIT_OK
