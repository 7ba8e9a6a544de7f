"""--overrides of `imagesafety scan`: a file, a gateway that is asked in each round, or none."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from imagesafety.admin_client import AdminApi
from imagesafety.command.scan import ADMIN_TOKEN
from imagesafety.override_list import OverrideEntry, load_overrides
from imagesafety.stored.place import PlaceSettingError

NONE = "none"
UNSAID = (
    "without --overrides, files that administrators allow would be taken for hits: give the "
    "gateway's admin address, a CSV that it exports, or none"
)

Overrides = Callable[[], Sequence[OverrideEntry]]


def overrides_of(said: str | None, *, acts: bool) -> Overrides:
    """What reads the list anew. `acts`: something is done with hits, which needs a list.

    Raises PlaceSettingError, ValueError for an address that can't be one, and OverrideListError
    for a file that can't be used.
    """
    if said is None:
        if acts:
            raise PlaceSettingError(UNSAID)
        return tuple
    if said == NONE:
        return tuple
    if said.startswith(("http://", "https://")):
        return AdminApi(said, os.environ.get(ADMIN_TOKEN, "").strip()).overrides
    load = partial(load_overrides, Path(said))
    load()
    return load
