"""Import of open_clip without the packages that the model does not need.

Most of a start is imports. open_clip imports timm and transformers where they are installed, and
torchvision and timm import PyTorch's compiler, with sympy: in all that is more than PyTorch itself
takes. None of it runs in a forward pass of most models.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import importlib.util
import logging
import sys
from collections.abc import Callable, Collection, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

from inference.model_source import LocalCheckpoint, ModelSource, PretrainedTag

_NEEDED_FOR = {"timm": "timm_model_name", "transformers": "hf_model_name"}  # names in a config
_COMPILER = "torch._dynamo.utils"

log = logging.getLogger("inference")


def import_open_clip(source: ModelSource, *, device: str, backend: str) -> None:
    """Import open_clip as the model and the settings `device` and `backend` need it.

    Afterwards each package can be imported as ever; open_clip goes on without those left out.
    """
    with _uncollected():
        import torch

        on_cpu = device == "cpu" or not torch.cuda.is_available()
        try:
            with _left_out(_not_needed(source)), contextlib.ExitStack() as stack:
                if on_cpu and backend != "compiled":  # which nothing else compiles for
                    stack.enter_context(_without_compiler())
                importlib.import_module("open_clip")
        except Exception as error:  # another version may need what this one does not
            log.debug("open_clip is imported with all that it can use: %s", error)
            importlib.import_module("open_clip")


@contextlib.contextmanager
def _uncollected() -> Iterator[None]:
    """Import without looking for garbage: modules stay, and the search is a sixth of the time."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()  # nor is what is there by now looked at again
        if enabled:
            gc.enable()


def _not_needed(source: ModelSource) -> Collection[str]:
    """The packages that the model's config does not ask for; none where it can't be read."""
    match source:
        case LocalCheckpoint(Path() as config, _):
            path = config
        case LocalCheckpoint(name, _) | PretrainedTag(name, _):
            found = importlib.util.find_spec("open_clip")
            if found is None or found.origin is None:
                return ()
            path = Path(found.origin).parent / "model_configs" / f"{name}.json"
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, ValueError):
        return ()
    return [package for package, name in _NEEDED_FOR.items() if name not in text]


@contextlib.contextmanager
def _left_out(packages: Collection[str]) -> Iterator[None]:
    """Let imports of packages fail that were not imported before."""
    absent = [package for package in packages if package not in sys.modules]
    for package in absent:
        sys.modules[package] = None  # type: ignore[assignment] # what Python says to do
    try:
        yield
    finally:
        for package in absent:
            del sys.modules[package]


@contextlib.contextmanager
def _without_compiler() -> Iterator[None]:
    """Let torchvision and timm be imported without PyTorch's compiler.

    They import it for one function that they only call when they compile, and for marks on
    functions that are not to be compiled.
    """
    import torch

    if _COMPILER in sys.modules:
        yield
        return
    stand_in: Any = ModuleType(_COMPILER)
    stand_in.is_compile_supported = _is_compile_supported
    compiler: Any = torch.compiler
    marked, compiler.disable = compiler.disable, _unmarked
    sys.modules[_COMPILER] = stand_in
    try:
        yield
    finally:
        compiler.disable = marked
        if sys.modules.get(_COMPILER) is stand_in:
            del sys.modules[_COMPILER]


def _is_compile_supported(device: str) -> bool:
    return bool(importlib.import_module(_COMPILER).is_compile_supported(device))


def _unmarked(function: Callable[..., Any] | None = None, *_: object, **__: object) -> Any:
    return function if function is not None else _unmarked
