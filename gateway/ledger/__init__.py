"""The record of every decision: rows in a database, and a spool for when there is none."""
