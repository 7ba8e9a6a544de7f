"""Starts the gateway: `python -m gateway`."""

import logging
import os
import sys

# What gRPC's core logs about connections is said by our own log, in words; set before its import.
os.environ.setdefault("GRPC_VERBOSITY", "NONE")

from gateway.server import main

code = main(sys.argv[1:])
logging.shutdown()
sys.stdout.flush()
sys.stderr.flush()
# Without waiting for threads: all rows are stored, but one may hang with its database.
os._exit(code)
