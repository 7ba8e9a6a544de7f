"""Builds the images, starts Compose beside a real pict-rs, and lets things go wrong.

`make containers`. Needs a Docker engine; with INSTALL_ENGINE=1, root gets Debian's for this run.
"""
