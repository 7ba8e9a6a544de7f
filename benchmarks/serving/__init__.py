"""Speed of the services beside that of the bare model, of bare servers and of the peers.

`make bench` is against_bare, `make bench-overhead` overhead, `make bench-peers` against_peers.
"""
