"""The timm plugin of torch-dag. It is used as soon as it is installed."""

from torch_dag_core.plugins.discovery import distribution_version

__version__ = distribution_version("torch-dag-timm")
