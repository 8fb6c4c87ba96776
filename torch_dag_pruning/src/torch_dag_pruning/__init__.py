"""Channel pruning of torch-dag graphs, in which masked equals removed."""
