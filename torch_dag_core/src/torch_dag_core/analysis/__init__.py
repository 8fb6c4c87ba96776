"""What can be said of a model or a graph without changing it: differences, costs, measurements, convertibility."""
