"""The rows of the rehearsal, a module for each kind."""
