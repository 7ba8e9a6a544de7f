"""Starts the inference service: `python -m inference`."""

import sys

if __name__ == "__main__":  # decoder processes import this module too, under another name
    from inference.server import main

    sys.exit(main(sys.argv[1:]))
