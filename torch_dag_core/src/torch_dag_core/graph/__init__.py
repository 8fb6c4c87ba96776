"""Graphs of modules: vertices and edges, the module that runs them, and edits that keep a graph valid."""
