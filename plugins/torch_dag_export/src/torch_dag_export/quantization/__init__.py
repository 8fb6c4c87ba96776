"""Weights stored as 8-bit integers, in a graph that has only ops of the core."""
