"""Masks laid over an analysed graph: set once by a plan, or learned and set anew before every step."""
