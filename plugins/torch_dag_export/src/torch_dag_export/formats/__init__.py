"""The formats of this plugin, each in a module of its own."""
