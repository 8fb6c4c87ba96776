"""The pruning analysis: runs axis rules over a graph, finds orbits and their costs, and reports what is frozen."""
