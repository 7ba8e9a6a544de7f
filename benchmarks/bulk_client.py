"""Scores the files of a folder through BulkScorer, in a process of its own.

The least that a command can do which reads files. With --ready, they are in memory before.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import sys
from collections.abc import AsyncGenerator, Sequence
from pathlib import Path

from benchmarks.serving.material import model, policy
from imagesafety.bulk import BulkImage, BulkOptions, BulkScorer
from imagesafety.client import ConceptSet
from imagesafety.policy_file import load_policy


async def ready(files: Sequence[Path]) -> AsyncGenerator[BulkImage[Path], None]:
    """Files that were read before the first is asked for."""
    images = [BulkImage(file, file.read_bytes()) for file in files]
    for image in images:
        yield image


async def read(files: Sequence[Path]) -> AsyncGenerator[BulkImage[Path], None]:
    """Files as they are asked for."""
    for file in files:
        yield BulkImage(file, await asyncio.to_thread(file.read_bytes))


async def main(arguments: argparse.Namespace) -> int:
    """Scores all; 1 if one has no scores."""
    files = sorted(path for path in arguments.folder.rglob("*") if path.is_file())
    options = BulkOptions(ConceptSet(load_policy(policy(model(), "policy")).concepts))
    images = ready(files) if arguments.ready else read(files)
    failed = 0
    async with (
        BulkScorer(arguments.target, options) as scorer,
        contextlib.aclosing(scorer.score(images)) as results,
    ):
        async for result in results:
            failed += result.scores is None
    return 1 if failed else 0


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("target")
    parser.add_argument("--ready", action="store_true", help="read them before the first is sent")
    sys.exit(asyncio.run(main(parser.parse_args())))
