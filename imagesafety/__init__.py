"""The library: the policy, the streaming client of the inference service, the command line."""
