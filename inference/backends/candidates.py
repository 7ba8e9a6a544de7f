"""Which ways to run a model there are on this machine."""

from __future__ import annotations

from dataclasses import dataclass
from typing import get_args

from inference.backends.machine import has_bfloat16, has_compiler, installed
from inference.backends.tower import PRECISIONS, Backend, Device, Precision, TowerSpec
from inference.model_source import ModelError

_PACKAGES: dict[Backend, tuple[str, ...]] = {
    "onnxruntime": ("onnxruntime", "onnx", "onnxscript"),
    "openvino": ("openvino", "onnx", "onnxscript"),
}
_QUANTISER = "onnxruntime"  # it makes the int8 model that OpenVINO runs too

# Compiled code is not among a CPU's: for ViT-B-32 it takes a minute to make and is as fast as eager
# in float32; in bfloat16 it is slower for batches of no fixed size.
# The most exact first, then the simplest: of two that are as fast, the first is chosen.
_CPU: tuple[tuple[Backend, Precision], ...] = (
    ("pytorch", "float32"),
    ("onnxruntime", "float32"),
    ("openvino", "float32"),
    ("pytorch", "bfloat16"),
    ("openvino", "bfloat16"),
    ("openvino", "int8"),
    ("onnxruntime", "int8"),
)
_CUDA: tuple[Backend, ...] = ("cuda-graphs", "pytorch", "compiled")

# The most promising first, for when the time is too short for all; what is left out comes last.
_HASTE: tuple[tuple[Backend, Precision], ...] = (
    ("pytorch", "float32"),
    ("cuda-graphs", "bfloat16"),
    ("cuda-graphs", "float16"),
    ("pytorch", "bfloat16"),
    ("openvino", "bfloat16"),
    ("openvino", "int8"),
    ("onnxruntime", "int8"),
    ("openvino", "float32"),
    ("onnxruntime", "float32"),
)


@dataclass(frozen=True)
class Wish:
    """What the settings leave open and what they don't; None is open."""

    backend: Backend | None
    precision: Precision | None

    @classmethod
    def of(cls, backend: str, precision: str) -> Wish:
        """From the settings, of which `auto` is open. Raises ModelError."""
        one = next((name for name in get_args(Backend) if name == backend), None)
        other = next((name for name in get_args(Precision) if name == precision), None)
        if one is not None and other is not None and other not in PRECISIONS[one]:
            raise ModelError(
                f"backend {one} has no precision {other}; it has {', '.join(PRECISIONS[one])}"
            )
        return cls(one, other)


def named(wish: Wish, device: Device, half: Precision) -> TowerSpec:
    """The backend that was asked for by name. Raises ModelError if it can't be had here.

    Where the precision is open, it is float32 on a CPU and `half` on CUDA: what a name gives must
    not depend on a measurement.
    """
    if wish.backend is None:
        raise ValueError("no backend was asked for")
    spec = TowerSpec(
        wish.backend, device, wish.precision or ("float32" if device == "cpu" else half)
    )
    reason = missing(spec)
    if reason:
        raise ModelError(f"backend {wish.backend}: {reason}")
    return spec


def candidates(wish: Wish, device: Device, half: Precision) -> list[TowerSpec]:
    """What `auto` has to choose from, the most exact and simplest first."""
    if device == "cuda":
        precision = wish.precision or half
        specs = [
            TowerSpec(backend, device, precision)
            for backend in _CUDA
            if precision in PRECISIONS[backend]
        ]
    else:
        specs = [
            TowerSpec(backend, device, precision)
            for backend, precision in _cpu_pairs(wish.precision)
        ]
    return [spec for spec in specs if not missing(spec)]


def _cpu_pairs(precision: Precision | None) -> list[tuple[Backend, Precision]]:
    if precision is None:
        # Without instructions for it, bfloat16 is slower than float32 and not worth a try.
        return [pair for pair in _CPU if pair[1] != "bfloat16" or has_bfloat16()]
    wanted = [pair for pair in _CPU if pair[1] == precision]
    return wanted or [("pytorch", precision)]


def in_haste(specs: list[TowerSpec]) -> list[TowerSpec]:
    """The order in which to try candidates if there may be no time for the last of them."""

    def place(spec: TowerSpec) -> int:
        pair = (spec.backend, spec.precision)
        return _HASTE.index(pair) if pair in _HASTE else len(_HASTE)

    return sorted(specs, key=place)


def missing(spec: TowerSpec) -> str:
    """What a way to run a model lacks here, in words; empty if nothing."""
    if spec.device == "cuda" and spec.backend in _PACKAGES:
        return "it runs on a CPU only: set device to cpu"
    if spec.device == "cpu" and spec.backend == "cuda-graphs":
        return "it needs a CUDA device"
    if spec.backend == "compiled" and not has_compiler():
        return "PyTorch needs a C++ compiler for it (g++)"
    packages = _PACKAGES.get(spec.backend, ())
    if spec.precision == "int8":
        packages = (*packages, _QUANTISER)
    absent = [package for package in packages if not installed(package)]
    return f"the package {absent[0]} is not installed" if absent else ""
