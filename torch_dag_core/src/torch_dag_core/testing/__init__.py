"""The contract that plugins keep, as tests that their authors run.

In ``conftest.py``: ``pytest_plugins = ["torch_dag_core.testing"]``. In a test module::

    @pytest.mark.torch_dag_plugin("blur")
    def test_contract(torch_dag_contract):
        torch_dag_contract()

which becomes one test for each check on each example that the plugin's records give (``examples=``). pytest comes with
``pip install torch-dag-core[testing]``.
"""

from torch_dag_core.testing.awake import awaken
from torch_dag_core.testing.cases import Case, cases_of, plugin_cases
from torch_dag_core.testing.checks import CHECKS, ContractCheck, ContractError
from torch_dag_core.testing.collection import Bound, contract, pytest_configure, pytest_generate_tests

__all__ = [
    "CHECKS", "Bound", "Case", "ContractCheck", "ContractError", "awaken", "cases_of", "contract", "plugin_cases",
    "pytest_configure", "pytest_generate_tests",
]  # fmt: skip
