"""Every public name of the package, which imports this module when the first of them is used."""

from torch_dag_show.dot import to_dot
from torch_dag_show.html import to_html
from torch_dag_show.model_explorer import to_model_explorer
from torch_dag_show.notebook import Picture
from torch_dag_show.svg import to_svg

__all__ = ["Picture", "to_dot", "to_html", "to_model_explorer", "to_svg"]
