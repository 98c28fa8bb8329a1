"""The CPU runtime: graphs built straight from checkpoints, compiled and run by OpenVINO."""
