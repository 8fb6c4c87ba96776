"""Every public name of the package, which imports this module when the first of them is used."""

from torch_dag_training.network import PrunableNetwork, StatefulNetwork

__all__ = ["PrunableNetwork", "StatefulNetwork"]
