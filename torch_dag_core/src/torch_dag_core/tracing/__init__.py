"""Tracing by execution: run a model and record every torch-level call as a `torch.fx` node."""
