"""Every error that the package raises on purpose, one class per thing a caller could handle."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch_dag_core.serialization.checkpoint_report import CheckpointReport


class TorchDagError(Exception):
    """Base of all errors raised by torch-dag and its plugins."""


class GraphError(TorchDagError):
    """An edit or a check of a graph failed; the graph is as it was before the call."""


class CycleError(GraphError):
    """The graph has a cycle; ``cycle`` holds the vertex names along it."""

    def __init__(self, cycle: Sequence[str]) -> None:
        self.cycle = tuple(cycle)
        super().__init__(f"the graph has a cycle: {' -> '.join(self.cycle)}; a DagModule must be acyclic")


class InputError(TorchDagError, ValueError):
    """A DagModule was called with inputs outside what it was traced for."""


class TraceError(TorchDagError):
    """A model could not be turned into a graph."""


class ExampleInputsError(TraceError):
    """No example inputs were given and none could be found."""


class NotAGraphError(TorchDagError, TypeError):
    """Something other than a DagModule was given where a graph is needed, such as a model that was not converted."""


class UnknownOpError(TorchDagError, LookupError):
    """A module class or an op key is not in the registry."""


class DuplicateOpError(TorchDagError):
    """Two owners registered the same key, class or function."""


class SerializationError(TorchDagError):
    """A file cannot be written, or is not a DAG file that can be trusted and read."""


class CheckpointError(TorchDagError, ValueError):
    """A checkpoint cannot be read, or does not match the model; ``report`` says what does not match, if that is it."""

    def __init__(self, message: str, report: CheckpointReport | None = None) -> None:
        self.report = report
        super().__init__(message)


class PluginError(TorchDagError):
    """A plugin misbehaved; ``plugin`` names it with its distribution and version."""

    def __init__(self, plugin: str, message: str) -> None:
        self.plugin = plugin
        super().__init__(message)


class PluginLoadError(PluginError):
    """A plugin could not be imported, or does not fit this version of the core."""


class PluginWarning(UserWarning):
    """A plugin was left out; the message is that of its `PluginError`."""


class RewriteLimitError(TorchDagError):
    """A rewrite did not settle within its step limit; ``rules`` names those still firing."""

    def __init__(self, rules: Sequence[str], limit: int) -> None:
        self.rules = tuple(rules)
        super().__init__(
            f"no fixed point after {limit} steps; still firing: {', '.join(self.rules)}; "
            "make the rules stop matching their own result, or raise max_steps"
        )


class ModelReferenceError(TorchDagError, ValueError):
    """A model reference such as ``timm:resnet18`` names nothing that can be built."""


class AlgorithmError(TorchDagError):
    """Base of what an algorithm on graphs refuses."""


class UnknownAlgorithmError(AlgorithmError, LookupError):
    """No installed plugin offers an algorithm of this name."""


class SettingsError(AlgorithmError, ValueError):
    """An algorithm cannot be started with these settings, on this graph or on any."""


class StubError(AlgorithmError, NotImplementedError):
    """A step of an algorithm does not exist yet; ``step`` names it."""

    def __init__(self, algorithm: str, step: str, missing: str) -> None:
        self.algorithm, self.step = algorithm, step
        super().__init__(f"{algorithm} is a stub: {step}() does not exist yet, it needs {missing}; analyze() works")
