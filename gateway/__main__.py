"""Starts the gateway: `python -m gateway`."""

import os
import sys

# What gRPC's core logs about connections is said by our own log, in words; set before its import.
os.environ.setdefault("GRPC_VERBOSITY", "NONE")

from gateway.server import main

sys.exit(main(sys.argv[1:]))
