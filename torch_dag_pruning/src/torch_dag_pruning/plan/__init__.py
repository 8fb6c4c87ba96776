"""Which slots stay: plans, the criteria that score slots, and the choice within a budget."""
