"""Rounds of measurements of the services, each between two of the bare model."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean

from benchmarks.serving.command import loaded
from benchmarks.serving.material import LARGE, SMALL
from benchmarks.serving.processes import Service, Worker
from benchmarks.serving.report import Figures, Report

SCORE_IMAGE, SCORE_IMAGES, HTTP = "ScoreImage", "ScoreImages", "HTTP"
PATHS = (SCORE_IMAGE, SCORE_IMAGES, HTTP)
KINDS = (SMALL, LARGE)
ENCODER, SIDE_BY_SIDE = "encoder", "encoder side by side"
DECODING, SIDE_BY_SIDE_DECODING = "encoder and decoding", "encoder side by side and decoding"
LOAD_SHARE = 0.8  # of capacity, for Poisson arrivals


@dataclass(frozen=True)
class Bare:
    """What the bare model does on an otherwise idle machine, at one moment."""

    images_per_second: float  # at the best batch, one batch after the other on all threads
    side_by_side: float  # as many batches at once as the service runs, on a share of them each
    single_ms: float  # a batch of one
    decode_ms: float  # one file, in one thread
    decode_core_ms: float

    def with_decoding(self, cores: int) -> float:
        """Images a second if each also has to be decoded on the same cores."""
        return _and_decoding(self.images_per_second, self.decode_core_ms, cores)

    def side_by_side_with_decoding(self, cores: int) -> float:
        """The same for batches side by side."""
        return _and_decoding(self.side_by_side, self.decode_core_ms, cores)


@dataclass(frozen=True)
class Pair:
    """What is measured: the bare model, both services, and who puts load on them."""

    report: Report
    bare: Worker
    best_batch: int
    max_batch: int  # of the service
    grpc_load: Worker
    http_load: Worker
    inference: Service
    gateway: Service

    def measure(self, path: str, kind: str, concurrency: int, seconds: float) -> Figures:
        """A service under load."""
        through_gateway = path == HTTP
        services = (self.gateway, self.inference) if through_gateway else (self.inference,)
        return loaded(
            self.report,
            name(path, kind, concurrency),
            self.http_load if through_gateway else self.grpc_load,
            services,
            path=path,
            target=services[0].address,
            files=kind,
            concurrency=concurrency,
            seconds=seconds,
        )

    def poisson(self, capacity: float, seconds: float, seed: int) -> Figures:
        """The service while calls come as they come, at a share of its capacity."""
        return loaded(
            self.report,
            f"Poisson arrivals at {LOAD_SHARE:.0%}",
            self.grpc_load,
            (self.inference,),
            path=SCORE_IMAGE,
            target=self.inference.address,
            files=SMALL,
            rate=LOAD_SHARE * capacity,
            seconds=seconds,
            seed=seed,
        )

    def measure_bare(self, kind: str, seconds: float) -> Bare:
        """The bare model, and the bare decoder for files of this kind."""
        best = self.bare.ask(forward=self.best_batch, seconds=seconds)
        several = self.bare.ask(forward=self.best_batch, seconds=seconds, side_by_side=True)
        single = self.bare.ask(forward=1, seconds=seconds / 2)
        decode = self.bare.ask(decode=kind, seconds=seconds / 4)
        figures = {
            "images_per_second": best["images_per_second"],
            "side_by_side": several["images_per_second"],
            "single_ms": single["batch_ms"],
            "decode_ms": decode["p50_ms"],
            "decode_core_ms": decode["core_ms"],
        }
        self.report.add(f"bare, {kind}", figures)
        return Bare(**figures)


def _and_decoding(images_per_second: float, decode_core_ms: float, cores: int) -> float:
    return 1 / (1 / images_per_second + decode_core_ms / 1000 / cores)


def name(path: str, kind: str, concurrency: int) -> str:
    """What a sample is called."""
    return f"{path}, {kind}, c={concurrency}"


def compare(pair: Pair, concurrencies: Sequence[int], seconds: float, poisson: float) -> None:
    """One round: every path, kind of file and concurrency, with the bare model between them."""
    for kind in KINDS:
        before = pair.measure_bare(kind, seconds / 2)
        for path in PATHS:
            for concurrency in concurrencies:
                figures = pair.measure(path, kind, concurrency, seconds)
                after = pair.measure_bare(kind, seconds / 2)
                _add_ratios(pair.report, name(path, kind, concurrency), figures, before, after)
                before = after
            if path == SCORE_IMAGE and kind == SMALL:
                _add_poisson(pair, figures["images_per_second"], poisson, seconds / 2)


def _add_ratios(report: Report, what: str, figures: Figures, before: Bare, after: Bare) -> None:
    """The service against what the bare model did right before and right after."""
    cores = len(os.sched_getaffinity(0))
    neighbours = (before, after)
    rate = figures["images_per_second"]
    references = {
        ENCODER: fmean(bare.images_per_second for bare in neighbours),
        SIDE_BY_SIDE: fmean(bare.side_by_side for bare in neighbours),
        DECODING: fmean(bare.with_decoding(cores) for bare in neighbours),
        SIDE_BY_SIDE_DECODING: fmean(bare.side_by_side_with_decoding(cores) for bare in neighbours),
    }
    lone_ms = fmean(bare.single_ms + bare.decode_ms for bare in neighbours)
    report.add(
        f"{what} / bare",
        {
            **{against: rate / reference for against, reference in references.items()},
            "added_ms": figures["p50_ms"] - lone_ms,
        },
    )


def _add_poisson(pair: Pair, capacity: float, seconds: float, bare_seconds: float) -> None:
    seed = len(pair.report.samples.get(f"Poisson arrivals at {LOAD_SHARE:.0%}", ()))
    figures = pair.poisson(capacity, seconds, seed)
    batch = pair.bare.ask(forward=pair.max_batch, seconds=bare_seconds)
    pair.report.add(
        "Poisson p99 / batch time",
        {"ratio": figures["p99_ms"] / batch["batch_ms"], "batch_ms": batch["batch_ms"]},
    )
