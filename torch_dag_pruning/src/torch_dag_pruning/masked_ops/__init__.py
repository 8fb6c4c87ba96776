"""Ops of masked graphs: `Mask` for edges, and masked forms of ops whose statistics run over prunable axes (M1, M3).

With masks of 1, a masked form computes what its op computes. The axis rules import this package, not vice versa.
"""
