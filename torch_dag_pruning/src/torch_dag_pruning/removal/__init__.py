"""Removal: from an analysed graph and a plan to the smaller graph, with the proof of equality (R1 to R3)."""
