"""The axis rules of torch functions that a graph calls by name, in one file per family of functions.

Functions without a rule freeze everything that they touch (O16).
"""
