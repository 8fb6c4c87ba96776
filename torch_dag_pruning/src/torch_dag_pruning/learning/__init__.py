"""Channel pruning that learns during training which slots stay."""
