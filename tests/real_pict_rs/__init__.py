"""pict-rs itself, put before our services: released builds of it, and the stand-in of other tests.

One suite for all of them, so that the stand-in can't drift from what pict-rs does. The real ones
come from `make real-pict-rs`; where one is missing, its tests are skipped.
"""
