"""The commands ``torch-dag coverage`` and ``coverage-table``: every model of a library examined, one process each."""
