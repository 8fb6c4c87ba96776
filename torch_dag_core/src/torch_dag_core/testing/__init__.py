"""The contract of plugins, as tests that the authors of plugins run.

In ``conftest.py``: ``pytest_plugins = ["torch_dag_core.testing"]``. In a test module::

    @pytest.mark.torch_dag_plugin("blur")
    def test_contract(torch_dag_contract):
        torch_dag_contract()

This becomes one test for each check on each example of the plugin's records (``examples=``).
``pip install torch-dag-core[testing]`` installs pytest as well.
"""

from torch_dag_core.testing.awake import awaken
from torch_dag_core.testing.cases import Case, cases_of, plugin_cases
from torch_dag_core.testing.checks import CHECKS, ContractCheck, ContractError
from torch_dag_core.testing.collection import ContractTest, contract, pytest_configure, pytest_generate_tests

__all__ = [
    "CHECKS", "Case", "ContractCheck", "ContractError", "ContractTest", "awaken", "cases_of", "contract",
    "plugin_cases", "pytest_configure", "pytest_generate_tests",
]  # fmt: skip
