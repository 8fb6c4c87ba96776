"""The contract of plugins, from the kit that comes with torch-dag-core."""

pytest_plugins = ["torch_dag_core.testing"]
