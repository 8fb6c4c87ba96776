"""How long a pruned graph takes on a device: the sum of the times of its ops, each measured once."""
