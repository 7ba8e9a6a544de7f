"""Generated from protos/third_party/inference/orca/orca.proto: see there."""
