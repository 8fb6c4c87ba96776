"""The op vocabulary: modules whose constants are declared, one class for each thing a graph can do.

Each module of this package declares the ops of one family: its own classes by `torch_dag_core.plugins.declarations.op`,
torch's by `torch_dag_core.plugins.declarations.declare`, with their keys, codecs, functions and cost rules.
"""
