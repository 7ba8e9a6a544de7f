"""Measures policies on labelled images."""
