"""torchvision's detectors as graphs, from a batch of images to boxes."""

from torch_dag_torchvision.detections import as_list

__all__ = ["as_list"]
