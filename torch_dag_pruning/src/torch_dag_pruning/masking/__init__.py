"""Masks in an analysed graph: fixed by a plan, or learned and updated at every training step."""
