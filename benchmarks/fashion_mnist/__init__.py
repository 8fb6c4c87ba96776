"""Accuracy after pruning on Fashion-MNIST: `python -m benchmarks.fashion_mnist --help`."""
