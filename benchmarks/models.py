"""Speed, memory and size of the models that docs/models.md lists: `make bench-models`.

Each with random weights, for which nothing has to be downloaded; only its image tower matters here,
so the text tower is a tiny one. A process with nothing but the encoder, as the service would have
it (`benchmarks/serving/bare.py`), encodes ready pixels: one picture after the other, and batches
side by side. `--backends auto` is what the service chooses at its first start. Prints the table of
docs/models.md; the last line is JSON.
"""

from __future__ import annotations

import argparse
import json
import logging
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import open_clip
from safetensors.torch import save_file

from benchmarks.serving.command import options, rounds, run
from benchmarks.serving.material import FOLDER
from benchmarks.serving.processes import BenchmarkError, Worker, running
from benchmarks.serving.report import Report, Row, at_least
from tests.e2e.processes import resident_bytes

MODELS = (
    "ViT-B-32/openai",
    "ViT-B-32-256/datacomp_s34b_b86k",
    "ViT-B-32-SigLIP2-256/webli",
    "ViT-B-16-SigLIP2-256/webli",
    "ViT-L-14/openai",
    "ViT-L-16-SigLIP2-256/webli",
)
BARE = "benchmarks.serving.bare"
BATCHES = (1, 2, 4, 8, 16, 32)
_TEXT = {"context_length": 77, "vocab_size": 49408, "width": 64, "heads": 2, "layers": 1}
_PREPROCESSING = ("mean", "std", "interpolation", "resize_mode")


@dataclass(frozen=True)
class Stand:
    """A model with random weights in place of a published one."""

    name: str
    setting: str  # of the service: config@checkpoint
    parameters: int  # of the published model
    image_parameters: int
    input_size: int
    embedding_width: int

    @property
    def row(self) -> str:
        """What does not have to be measured, as the first columns of the table."""
        parameters = f"{self.parameters / 1e6:.0f} M ({self.image_parameters / 1e6:.0f} M)"
        return f"`{self.name}` | {parameters} | {self.input_size} | {self.embedding_width}"


def stand_in(name: str) -> Stand:
    """Makes one, in the folder of the benchmarks. Raises BenchmarkError for an unknown name."""
    architecture, _, tag = name.partition("/")
    config = open_clip.get_model_config(architecture)
    published = open_clip.get_pretrained_cfg(architecture, tag)
    if config is None or not published:
        raise BenchmarkError(f"open_clip knows no model {name}")
    content = {
        "model_cfg": {
            **config,
            "text_cfg": _TEXT,
            "quick_gelu": published.get("quick_gelu", False),
        },
        "preprocess_cfg": {key: published[key] for key in _PREPROCESSING if key in published},
    }
    FOLDER.mkdir(parents=True, exist_ok=True)
    path = FOLDER / f"{name.replace('/', '-')}.json"
    path.write_text(json.dumps(content))
    checkpoint = path.with_suffix(".safetensors")
    logging.disable(logging.WARNING)  # it warns that the weights are random
    try:
        parameters = _count(open_clip.create_model(architecture))
        with tempfile.TemporaryDirectory() as folder:
            (Path(folder) / "open_clip_config.json").write_text(json.dumps(content))
            model = open_clip.create_model(f"local-dir:{folder}", load_weights=False)
    finally:
        logging.disable(logging.NOTSET)
    save_file({key: value.contiguous() for key, value in model.state_dict().items()}, checkpoint)
    return Stand(
        name,
        f"{path}@{checkpoint}",
        parameters,
        _count(model.visual),
        int(config["vision_cfg"]["image_size"]),
        int(config["embed_dim"]),
    )


def _count(model: open_clip.CLIP) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


def flags(stand: Stand, backend: str) -> list[str]:
    """The settings of the service; `backend` is auto, or a backend and a precision."""
    kind, _, precision = backend.partition(":")
    wanted = ["--model", stand.setting, "--backend", kind, "--precision", precision or "auto"]
    return [*wanted, "--cache-folder", str(FOLDER / "backends")]


def measure(report: Report, stand: Stand, backend: str, arguments: argparse.Namespace) -> str:
    """All rounds of one model and backend; its row of the table, or nothing if it can't be had."""
    command = [sys.executable, "-m", BARE, *flags(stand, backend)]
    with running("bare model", command) as service:
        bare = Worker(service)
        try:
            chosen = bare.ask()["backend"]
        except BenchmarkError as error:
            report.note(f"without {stand.name}, {backend}", str(error).splitlines()[-1])
            return ""
        what = f"{stand.name}, {chosen}"
        for _ in rounds(arguments.rounds):
            for batch in arguments.batches:
                report.add(
                    f"{what}, batch {batch}",
                    bare.ask(forward=batch, seconds=arguments.seconds, side_by_side=batch > 1),
                )
        memory = resident_bytes(service.process.pid) / 1e6
    report.note(f"{what}, memory in MB", round(memory))
    rates = {
        batch: median(report.values(f"{what}, batch {batch}", "images_per_second"))
        for batch in arguments.batches
    }
    best = max(rates, key=lambda batch: rates[batch])
    first = min(arguments.batches)
    alone = median(report.values(f"{what}, batch {first}", "batch_ms"))
    return (
        f"| {stand.row} | {stand.parameters * 4 / 1e9:.1f} GB | {chosen} | {alone:.0f} ms | "
        f"{rates[best]:.1f} ({best}) | {memory:.0f} MB |"
    )


def rows(report: Report) -> list[Row]:
    """Images a second of everything."""
    return [at_least(what, report.values(what, "images_per_second")) for what in report.samples]


def table(lines: Sequence[str]) -> str:
    """For docs/models.md."""
    names = (
        "model",
        "parameters (image tower)",
        "input",
        "embedding",
        "float32 on disk",
        "backend",
        "p50 of one picture",
        "images a second, at best (batch)",
        "memory without the text tower",
    )
    return "\n".join([f"| {' | '.join(names)} |", "| --- " * len(names) + "|", *lines])


def main(arguments: argparse.Namespace) -> int:
    """The command."""
    report = Report("models", vars(arguments))
    lines = []
    for name in arguments.models:
        stand = stand_in(name)
        measured = [measure(report, stand, backend, arguments) for backend in arguments.backends]
        lines += [line for line in measured if line]
    print(f"\n{table(lines)}")
    return report.finish(rows(report))


if __name__ == "__main__":
    parser = options(__doc__)
    parser.set_defaults(rounds=3)
    parser.add_argument("--models", nargs="+", default=MODELS, metavar="ARCH/TAG")
    parser.add_argument(
        "--backends", nargs="+", default=["auto"], help="auto, pytorch, openvino:int8 and so on"
    )
    parser.add_argument("--batches", type=int, nargs="+", default=BATCHES)
    chosen_options = parser.parse_args()
    sys.exit(run(lambda: main(chosen_options)))
