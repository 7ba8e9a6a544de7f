"""What is already in store: where it lies, what was found out of it, and what is done with hits.

fsspec and its backends, and cryptography, are imported here and nowhere else in the library.
"""
