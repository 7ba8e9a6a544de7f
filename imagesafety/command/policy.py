"""`imagesafety policy …`: what can be done with policy files."""

from __future__ import annotations

from imagesafety.command import policy_check, policy_replay
from imagesafety.command.subcommands import Commands


def add_to(commands: Commands) -> None:
    """Adds the commands to the parser."""
    policy = commands.add_parser("policy", help="work with policy files")
    kinds = policy.add_subparsers(required=True, metavar="COMMAND")
    for module in (policy_check, policy_replay):
        module.add_to(kinds)
