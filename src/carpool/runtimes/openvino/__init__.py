"""The CPU runtime: graphs built straight from checkpoints, compiled and run by OpenVINO."""

import sys

# To import OpenVINO is to tell Google Analytics so, from a process forked beside running threads, if it finds
# its package for that. A server tells nobody; without the package OpenVINO does nothing in its place.
sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]
