"""Graphs as Python: one readable module that needs torch and safetensors alone, with its weights beside it."""
