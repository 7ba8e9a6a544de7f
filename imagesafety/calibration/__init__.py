"""Sets a policy's thresholds by what was measured on an administrator's own material."""
