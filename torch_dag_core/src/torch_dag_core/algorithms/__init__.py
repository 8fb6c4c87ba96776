"""The common interface of algorithms on graphs, with their settings, losses and reports."""
