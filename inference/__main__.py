"""Starts the inference service: `python -m inference`."""

import os
import sys

if __name__ == "__main__":  # decoder processes import this module too, under another name
    # What gRPC's core logs about connections is said by our own log; set before its import.
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    from inference.server import main

    sys.exit(main(sys.argv[1:]))
