"""The ops that detectors need beside the core's."""
