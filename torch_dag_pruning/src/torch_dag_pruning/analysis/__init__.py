"""What can be pruned, what cannot and why: rules run over a graph, orbits, and their cost."""
