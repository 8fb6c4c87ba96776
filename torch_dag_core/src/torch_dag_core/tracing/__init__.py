"""Tracing by execution: run a model and record every torch-level call as an entry of a `Recording`."""
