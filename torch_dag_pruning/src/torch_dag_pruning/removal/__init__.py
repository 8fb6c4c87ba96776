"""From a graph and a plan to the smaller graph, and the proof that it computes what the masked one does."""
