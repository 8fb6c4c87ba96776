"""Ops under masks: the mask over one edge, and the masked forms of ops whose statistics run over prunable axes.

With all masks at 1 a masked form computes what its op does. It lies below the axis rules, which name it.
"""
