"""The same model in other serving systems, each in the way that its own documentation teaches."""
