"""Recovery without training: the weights behind removed slots are solved anew, and batch norms follow."""
