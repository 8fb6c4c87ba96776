"""Learned pruning in training frameworks: one module for each, which alone imports it."""

from torch_dag_training.network import PrunableNetwork, StatefulNetwork

__all__ = ["PrunableNetwork", "StatefulNetwork"]
