"""Has open_clip fetch a model's weights, where they are wanted before the service starts.

`python -m inference.fetch_weights ARCH/TAG` downloads them into the folder of HF_HOME, and tells
their digest. Inference needs no network then: it finds them there with HF_HUB_OFFLINE=1.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from inference.model_source import ModelError, parse_model


def main(arguments: Sequence[str]) -> int:
    """Loads the one model that is named; the exit code."""
    if len(arguments) != 1:
        print("usage: python -m inference.fetch_weights ARCH/TAG", file=sys.stderr)  # noqa: T201
        return 2
    name = arguments[0]
    try:
        source = parse_model(name)
        # Imported late: it takes seconds, and a wrong name should not.
        from inference.open_clip_model import load_open_clip

        model = load_open_clip(name, source)
    except ModelError as error:
        print(f"fetch_weights: {error}", file=sys.stderr)  # noqa: T201
        return 2
    print(f"{name} {model.weights_digest}")  # noqa: T201
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
