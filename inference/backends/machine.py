"""Facts about this machine that backends depend on."""

from __future__ import annotations

import contextlib
import hashlib
import importlib.metadata
import importlib.util
import os
import platform
import shutil
from functools import cache
from pathlib import Path

_CPU_INFO = Path("/proc/cpuinfo")
_CPU_LIMITS = (Path("/sys/fs/cgroup/cpu.max"), Path("/sys/fs/cgroup/cpu/cpu.cfs_quota_us"))
_PACKAGES = (
    *("numpy", "onnx", "onnxruntime", "onnxscript"),
    *("open_clip_torch", "openvino", "timm", "torch"),
)


@cache
def cpu_facts() -> dict[str, str]:
    """The model of the first CPU, and what it can do; only the architecture if that isn't told."""
    facts = {"model": platform.machine(), "flags": ""}
    try:
        text = _CPU_INFO.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return facts
    for line in text.partition("\n\n")[0].splitlines():
        name, _, value = line.partition(":")
        match name.strip():
            case "model name":
                facts["model"] = value.strip()
            case "flags" | "Features":
                facts["flags"] = value.strip()
    return facts


def cpu_limit() -> str:
    """A container's share of the processors, as the kernel writes it; empty: all."""
    for path in _CPU_LIMITS:
        with contextlib.suppress(OSError):
            return path.read_text(encoding="utf-8", errors="replace").strip()
    return ""


def has_bfloat16() -> bool:
    """True if the CPU multiplies bfloat16 itself; else it is slower than float32."""
    return not {"avx512_bf16", "amx_bf16", "bf16"}.isdisjoint(cpu_facts()["flags"].split())


def has_compiler() -> bool:
    """True if there is the C++ compiler that torch.compile needs on a CPU."""
    return any(shutil.which(name) for name in (os.environ.get("CXX", "g++"), "g++", "clang++"))


def installed(package: str) -> bool:
    """True if a package can be imported; this does not import it."""
    return importlib.util.find_spec(package) is not None


def versions() -> dict[str, str]:
    """Of the packages that export and run models; those that aren't installed are left out."""
    found = {}
    for package in _PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def file_digest(path: Path) -> str:
    """SHA-256 of a file, in hexadecimal. Raises OSError."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
