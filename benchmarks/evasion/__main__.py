"""How surely a subject is found that is hidden: `make bench-evasion`.

Draws pictures that policies/demo.toml rejects and pictures that it should not, hides both in every
way of `transforms.py`, and sends them to a real inference service with the demo model: with the
policy as it is, with a `detail` of 2×2 tiles, of 2×2 and 3×3 tiles, and of both near a threshold
only. Prints how many are found and how many are falsely rejected. No goal; the last line is JSON.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys

from benchmarks.evasion.scoring import DETAILS, findings
from benchmarks.evasion.tally import Tally
from benchmarks.evasion.transforms import named
from benchmarks.serving.command import run
from benchmarks.serving.processes import inference
from imagesafety.policy_file import find_policy, load_policy

# Rates should not depend on how busy the machine is, so nothing is cut short.
PATIENT = ("--frame-seconds", "300", "--decode-seconds", "300", "--idle-seconds", "300")


async def measure(target: str, options: argparse.Namespace) -> Tally:
    """All files, through the service at `target`."""
    transforms = named(options.transforms)
    tally = Tally(transforms, tuple(DETAILS))
    policy = load_policy(find_policy("demo"))
    clips = min(options.clips, options.pictures)
    calls = len(DETAILS) * 2 * sum(clips if one.clip else options.pictures for one in transforms)
    done = 0
    async for finding in findings(
        target, policy, transforms, pictures=options.pictures, clips=clips, seed=options.seed
    ):
        tally.add(finding)
        done += 1
        if done % max(1, calls // 20) == 0:
            print(f"{done / calls:.0%} of {calls} calls", file=sys.stderr, flush=True)
    return tally


def main(options: argparse.Namespace) -> int:
    """The command."""
    with inference("--model", "demo", "--backend", "pytorch", *PATIENT) as service:
        tally = asyncio.run(measure(service.address, options))
        service.check()
    for rejectable in (True, False):
        print("\n".join(tally.table(rejectable=rejectable)), end="\n\n")
    facts = {"benchmark": "evasion", "pictures": options.pictures, "clips": options.clips}
    print(json.dumps({**facts, "seed": options.seed, **tally.content()}))
    return 0


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pictures", type=int, default=200, help="of each kind (200)")
    parser.add_argument("--clips", type=int, default=20, help="of each kind, at most (20)")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument(
        "--transforms", nargs="*", default=[], help="those that begin so (all)", metavar="NAME"
    )
    chosen = parser.parse_args()
    sys.exit(run(lambda: main(chosen)))
