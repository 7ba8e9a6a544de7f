"""Failures played on one machine with real processes: `make rehearse`."""
