"""The command ``torch-dag export``."""
