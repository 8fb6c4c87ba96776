"""A project that never imports a plugin."""
