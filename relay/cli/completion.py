"""`otp-relay completion`: a completion script for a shell."""

from __future__ import annotations

import argparse
import sys
from importlib import resources

from relay.cli.common import EXIT_OK, NOT_READ, add_config, set_command

SCRIPTS = {"bash": "bash/otp-relay", "zsh": "zsh/_otp-relay", "fish": "fish/otp-relay.fish"}
"""Each has the name that its shell looks for. `python -m tools.generate` makes them from the parsers."""


def register(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = subparsers.add_parser(
        "completion",
        help="print a completion script for bash, zsh or fish",
        description="Prints a completion script. bash: `source <(otp-relay completion bash)` in ~/.bashrc; zsh: write "
        "it to _otp-relay in a folder of $fpath; fish: to ~/.config/fish/completions/otp-relay.fish.",
    )
    parser.add_argument("shell", choices=tuple(SCRIPTS), metavar="|".join(SCRIPTS), help="the shell")
    add_config(parser, NOT_READ)
    set_command(parser, completion)


def completion(args: argparse.Namespace) -> int:
    """Exit 0."""
    script = resources.files("relay.cli").joinpath("completions", SCRIPTS[args.shell])
    sys.stdout.write(script.read_text(encoding="utf-8"))
    return EXIT_OK
