"""Every public name of the package, which imports this module when the first of them is used."""

from torch_dag_hub.card import model_card
from torch_dag_hub.downloading import from_pretrained
from torch_dag_hub.errors import HubError
from torch_dag_hub.folder import save_pretrained
from torch_dag_hub.network import PrunedNet
from torch_dag_hub.settings import SharingSettings
from torch_dag_hub.uploading import push_to_hub

__all__ = [
    "HubError",
    "PrunedNet",
    "SharingSettings",
    "from_pretrained",
    "model_card",
    "push_to_hub",
    "save_pretrained",
]
