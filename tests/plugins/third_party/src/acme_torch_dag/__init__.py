"""Modules and functions of Acme, which know nothing of torch-dag."""

from acme_torch_dag.modules import AcmeNet, OutlierClip, snake

__all__ = ["AcmeNet", "OutlierClip", "snake"]
