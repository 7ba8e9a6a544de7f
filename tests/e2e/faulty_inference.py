"""The inference service, with decoders that do what a file tells them to."""

import sys

from inference import decoder_process
from inference.server import main

if __name__ == "__main__":
    decoder_process.WORKER_MODULE = "tests.inference.faulty_worker"
    sys.exit(main(sys.argv[1:]))
