"""What algorithms on graphs have in common: one interface, their settings, their losses and their reports."""
