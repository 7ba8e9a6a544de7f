"""Chooses the image tower among candidates: from the cache, or by measuring them."""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import time
from collections.abc import Sequence
from dataclasses import asdict, replace
from functools import cached_property

from inference.backends.cache import BackendCache
from inference.backends.candidates import in_haste
from inference.backends.choice import Trial, choose, finalists, table
from inference.backends.contest import Contest
from inference.backends.factory import TowerFactory
from inference.backends.machine import file_digest
from inference.backends.tower import ImageTower, TowerSpec
from inference.backends.verdicts import SHIPPED, VerdictCheck
from inference.model_source import ModelError

SLOW_TO_BUILD = 60.0
"""Seconds that have to be left to begin compiling, which can't be broken off."""

log = logging.getLogger("inference")


class Selection:
    """One choice among candidates that may need files."""

    def __init__(
        self,
        specs: Sequence[TowerSpec],
        reference: ImageTower,
        factory: TowerFactory,
        cache: BackendCache,
        verdicts: VerdictCheck,
        hardware: str,
    ) -> None:
        """`specs` are in order of preference; `hardware` names what they run on."""
        self._specs = {spec.name: spec for spec in specs}
        self._reference = reference
        self._factory = factory
        self._cache = cache
        self._verdicts = verdicts
        self._hardware = hardware

    def by_name(self, spec: TowerSpec) -> ImageTower:
        """What was asked for. If it is new and less than exact, the log says how close it is."""
        tower = self._factory.build(spec)
        if spec.precision != "float32" and self._factory.made_anew(spec):
            trial = self._contest().check(tower)
            if trial.refused:
                log.warning(
                    "%s was asked for, but would not be chosen: %s (least cosine %.5f)",
                    *(trial.name, trial.refused, trial.cosine),
                )
        tower.prepare()
        self._factory.keep(spec)
        return tower

    def remembered(self) -> ImageTower | None:
        """The one that an earlier start chose; None without any, or if it fails now."""
        try:
            spec = self._specs.get(self._cache.choice(self._key) or "")
        except ModelError:  # of the calibration pictures, which may not be needed
            return None
        if spec is None:
            return None
        try:
            tower = self._opened(spec)
            tower.prepare()
            self._factory.keep(spec)
        except Exception as error:  # whatever a library raises: then it is found out anew
            log.warning("%s, chosen earlier, fails now: %s", spec.name, one_line(error))
            return None
        log.info("%s, as chosen at an earlier start", spec.name)
        return tower

    def settled(self, spec: TowerSpec) -> ImageTower:
        """A choice that needs no measuring, kept for the next start."""
        with contextlib.suppress(ModelError):
            self._cache.keep_choice(self._key, spec.name, {})
        return self._opened(spec)

    def measured(self, seconds: float) -> ImageTower:
        """The fastest that passes the check, found out now."""
        key = self._key
        if not self._cache.begin(key):
            return self._opened(next(iter(self._specs.values())))
        try:
            tower = self._winner(key, time.monotonic() + seconds)
        finally:
            self._cache.end(key)
        tower.prepare()
        self._factory.keep(tower.spec)
        return tower

    def _winner(self, key: str, end: float) -> ImageTower:
        contest = self._contest()
        trials = self._trials(contest, end)
        last = finalists(trials)
        if not last:
            raise ModelError(f"all backends are too far from {self._reference.spec.name}")
        if len(last) > 1 and time.monotonic() < end:
            towers = [self._opened(self._specs[trial.name]) for trial in last]
            rates = contest.final(towers)
            trials = [replace(t, rates=rates.get(t.name, t.rates)) for t in trials]
            chosen = choose([trial for trial in trials if trial.name in rates])
            for tower in towers:
                if tower.spec.name != chosen.name and tower is not self._reference:
                    tower.close()
            tower = next(tower for tower in towers if tower.spec.name == chosen.name)
        else:
            chosen = choose(trials)
            tower = self._opened(self._specs[chosen.name])
        lines = table(trials, chosen)
        log.info("backends of this model on this machine:\n%s", "\n".join(lines))
        self._cache.keep_choice(key, chosen.name, {"trials": [asdict(trial) for trial in trials]})
        return tower

    @cached_property
    def _key(self) -> str:
        """A digest of all that the choice depends on."""
        facts = {
            "model": self._factory.key,
            "hardware": self._hardware,
            "share": asdict(self._factory.share),
            "candidates": list(self._specs),
            "policies": file_digest(SHIPPED),
        }
        return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:32]

    def _trials(self, contest: Contest, end: float) -> list[Trial]:
        """Of all candidates, in their order."""
        trials = {}
        for spec in in_haste(list(self._specs.values())):
            if spec == self._reference.spec:
                trials[spec.name] = contest.of_reference
                continue
            left = end - time.monotonic()
            needed = SLOW_TO_BUILD if spec.backend == "compiled" else 0.0
            if left <= needed:
                trials[spec.name] = Trial(spec.name, {}, refused="not tried: no time left")
            else:
                trials[spec.name] = self._trial(contest, spec)
        return [trials[name] for name in self._specs]

    def _trial(self, contest: Contest, spec: TowerSpec) -> Trial:
        try:
            tower = self._factory.build(spec)
        except Exception as error:  # libraries raise what they like for a model they can't run
            return Trial(spec.name, {}, refused=f"fails: {one_line(error)}")
        try:
            return contest.trial(tower)
        except Exception as error:
            return Trial(spec.name, {}, refused=f"fails: {one_line(error)}")
        finally:
            tower.close()

    def _opened(self, spec: TowerSpec) -> ImageTower:
        return self._reference if spec == self._reference.spec else self._factory.build(spec)

    def _contest(self) -> Contest:
        return Contest(self._reference, self._factory.pictures, self._verdicts.changed)


def one_line(error: Exception) -> str:
    """The beginning of what a library raised."""
    return " ".join(str(error).split())[:160] or type(error).__name__
