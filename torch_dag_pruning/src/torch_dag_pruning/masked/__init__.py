"""Ops whose statistics run over prunable axes, in their masked form: equal to the op where all masks are 1."""
