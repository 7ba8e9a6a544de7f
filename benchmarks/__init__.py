"""Measurements: every claim of speed or quality has its command here."""
