"""`imagesafety policy check FILE`."""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING

from imagesafety.policy import Mode
from imagesafety.policy_file import PolicyError, find_policy, load_policy

if TYPE_CHECKING:
    Commands = argparse._SubParsersAction[argparse.ArgumentParser]


def add_to(commands: Commands) -> None:
    """Adds the command to the parser."""
    check = commands.add_parser("check", help="say whether a policy file can be used")
    check.add_argument("file", help="policy file, or the name of one that ships with us")
    check.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Reads the policy, says what is in it or what is wrong with it."""
    try:
        path = find_policy(options.file)
        policy = load_policy(path)
    except PolicyError as error:
        print(f"imagesafety: {error}", file=sys.stderr)
        return 2
    print(f"{path}: a policy for model {policy.model}, {len(policy.concepts)} concepts")
    for rule in policy.rules:
        mode = f" ({rule.mode})" if rule.mode is not Mode.ENFORCE else ""
        print(f"  {rule.action} by {rule.name}: {' and '.join(rule.groups)}{mode}")
    return 0
