"""Training a graph to be like another one, with any algorithm."""
