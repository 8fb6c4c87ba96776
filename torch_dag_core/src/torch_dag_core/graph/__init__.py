"""The graph: vertices and edges, the module that runs them, and the edits that keep it valid."""
