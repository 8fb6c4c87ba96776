"""Analyses that change neither models nor graphs: differences of outputs, costs, sizes, convertibility."""
