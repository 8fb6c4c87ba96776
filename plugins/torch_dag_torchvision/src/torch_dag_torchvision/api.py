"""Every public name of the package, which imports this module when the first of them is used."""

from torch_dag_torchvision.detections import as_list

__all__ = ["as_list"]
