"""The op vocabulary of the core: one class for each kind of vertex, with its constants as fields.

Each module of this package declares the ops of one family, with their keys, codecs, functions and cost rules: its own
classes with `torch_dag_core.plugins.declarations.op`, and torch's with `torch_dag_core.plugins.declarations.declare`.
"""
