"""The command ``torch-dag prune``."""
