"""Pictures of graphs: an interactive page, a Graphviz file, a file for Model Explorer."""

from torch_dag_show.dot import to_dot
from torch_dag_show.html import to_html
from torch_dag_show.model_explorer import to_model_explorer
from torch_dag_show.notebook import Picture

__all__ = ["Picture", "to_dot", "to_html", "to_model_explorer"]
