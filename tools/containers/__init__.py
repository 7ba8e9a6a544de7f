"""Build the images, start Compose beside a real pict-rs, and let things go wrong.

`make containers`. Needs a Docker engine; with INSTALL_ENGINE=1, root gets Debian's for this run.
"""
