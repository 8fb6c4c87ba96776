"""The interface of algorithms on graphs, and the lookup of those that plugins offer.

An algorithm is bound to one graph and one frozen set of settings. All algorithms have the same four steps:

    algorithm = td.find_algorithm("channel-pruning").start(dag, keep_flops=0.5)
    print(algorithm.analyze())             # what can be removed; does not change the graph
    prepared = algorithm.prepare()         # a trainable graph with the algorithm's own parameters
    losses = algorithm.losses(step)        # at every training step; loss = task + losses.total()
    smaller = algorithm.finalize()         # a plain graph with the change carried out

An algorithm that needs no training can be finalized right after `prepare`.
"""

from __future__ import annotations

import dataclasses
import difflib
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol, get_type_hints

from torch_dag_core.algorithms.reports import CompressionReport
from torch_dag_core.errors import AlgorithmError, SettingsError, UnknownAlgorithmError
from torch_dag_core.graph.entry_checks import require_graphs
from torch_dag_core.plugins.loading import by_key
from torch_dag_core.plugins.record_checks import CALLABLE, Kind, check_fields

if TYPE_CHECKING:
    from torch import Tensor

    from torch_dag_core.graph.dag import DagModule

STATUSES = ("stable", "experimental", "stub")
_STEPS = ("analyze", "prepare", "losses", "finalize")
_NAME = Kind("a name such as 'channel-pruning'", lambda v: isinstance(v, str) and bool(re.fullmatch(r"[\w.-]+", v)))


@dataclass(frozen=True)
class Losses:
    """The differentiable scalars that an algorithm computes at one training step.

    Attributes:
        cost_share: Current share of the original cost of the model.
        terms: Terms to add to the loss of the task, by name: for instance the cost above the target, the entropy of
            undecided choices, or the distance of changed parts from the originals.
    """

    cost_share: Tensor
    terms: Mapping[str, Tensor] = field(default_factory=dict)

    def total(self) -> Tensor:
        """Return the sum of all terms, 0 if there are none; ``cost_share`` is not a term."""
        import torch

        return sum(self.terms.values(), start=torch.zeros_like(self.cost_share))


class Algorithm(Protocol):
    """A change of one graph in four steps: analyse, prepare, train with additional losses, and finalize."""

    def analyze(self) -> CompressionReport:
        """Return what can be changed, what it costs, and what cannot be changed and why; changes nothing."""

    def prepare(self) -> DagModule:
        """Return a trainable graph with the algorithm's own parameters."""

    def losses(self, global_step: int) -> Losses:
        """Return the current share of cost and the losses to add, for the latest call of the prepared graph."""

    def finalize(self) -> DagModule:
        """Return a plain graph with the change carried out."""


@dataclass(frozen=True, kw_only=True)
class Setting:
    """One setting of an algorithm: a field of its config class.

    Attributes:
        is_output: Whether the value is the path of a file that the algorithm writes.
    """

    name: str
    hint: Any
    default: Any
    help: str
    is_output: bool = False

    @property
    def required(self) -> bool:
        """Whether the setting has no default."""
        return self.default is dataclasses.MISSING


@dataclass(frozen=True, kw_only=True)
class AlgorithmSpec:
    """An algorithm that a plugin offers.

    Attributes:
        name: Its name for users, such as ``channel-pruning``.
        summary: One sentence.
        config: Frozen dataclass of its settings, which raises ValueError for wrong ones in ``__post_init__``. A field
            may have a description in ``metadata={"help": ...}``; ``"output": True`` there marks the path of a file that
            the algorithm writes.
        create: Returns the algorithm bound to a graph and a config; raises ValueError if the graph does not allow it.
        trains: Whether the graph is to be trained between `Algorithm.prepare` and `Algorithm.finalize`.
        status: ``stable``, ``experimental``, or ``stub`` if only `Algorithm.analyze` works.
        owner: Distribution that offers the algorithm; set by `algorithms`.
    """

    name: str
    summary: str
    config: type
    create: Callable[[DagModule, Any], Algorithm]
    trains: bool = True
    status: str = "stable"
    owner: str = ""

    def __post_init__(self) -> None:
        """Check the fields; the config must be frozen because its values are checked only once.

        Raises:
            ValueError: a field has a wrong value.
        """
        parameters = getattr(self.config, "__dataclass_params__", None)
        if not dataclasses.is_dataclass(self.config) or parameters is None or not parameters.frozen:
            message = f"the config of algorithm {self.name!r} must be a frozen dataclass, got {self.config!r}"
            raise ValueError(message)
        check_fields(self, {"name": _NAME, "create": CALLABLE})
        if self.status not in STATUSES:
            message = f"the status of algorithm {self.name!r} must be one of {', '.join(STATUSES)}, got {self.status!r}"
            raise ValueError(message)

    def settings(self) -> dict[str, Setting]:
        """Return the settings by name, in the order of the config's fields."""
        hints = get_type_hints(self.config)
        return {
            each.name: Setting(
                name=each.name,
                hint=hints[each.name],
                default=_default(each),
                help=each.metadata.get("help", ""),
                is_output=each.metadata.get("output", False),
            )
            for each in dataclasses.fields(self.config)
            if each.init
        }

    def configure(self, **settings: Any) -> Any:
        """Return the config with these settings.

        Raises:
            SettingsError: a setting is unknown, missing or wrong.
        """
        known = self.settings()
        for name in settings:
            if name not in known:
                message = f"{self.name} has no setting {name!r}{_suggestion(name, known)}"
                raise SettingsError(message)
        missing = [name for name, setting in known.items() if setting.required and name not in settings]
        if missing:
            message = f"{self.name} needs {' and '.join(f'{name}=...' for name in missing)}"
            raise SettingsError(message)
        return self._refusing(self.config, **settings)

    def start(self, dag: DagModule, config: Any = None, **settings: Any) -> Algorithm:
        """Return the algorithm bound to a graph, with a config or with settings by name.

        Raises:
            SettingsError: the settings are wrong, or the graph does not allow them.
            AlgorithmError: the object that the plugin created lacks one of the four steps.
        """
        require_graphs("start()", dag)
        if config is None:
            config = self.configure(**settings)
        elif settings or not isinstance(config, self.config):
            message = f"{self.name} takes either a {self.config.__name__} or settings by name, got {config!r}"
            raise SettingsError(message)
        algorithm: Algorithm = self._refusing(self.create, dag, config)
        missing = [step for step in _STEPS if not callable(getattr(algorithm, step, None))]
        if missing:
            what = f"{self.name} of {self.owner or 'an unknown distribution'} created a {type(algorithm).__name__}"
            message = f"{what}, which has no {missing[0]}()"
            raise AlgorithmError(message)
        return algorithm

    def _refusing(self, make: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """Call a constructor, and turn its ValueError into a SettingsError that names the algorithm."""
        try:
            return make(*args, **kwargs)
        except SettingsError:
            raise
        except ValueError as error:
            message = f"{self.name}: {error}"
            raise SettingsError(message) from error


def _default(each: dataclasses.Field[Any]) -> Any:
    return each.default if each.default_factory is dataclasses.MISSING else each.default_factory()


def _suggestion(name: str, known: dict[str, Any]) -> str:
    close = difflib.get_close_matches(name, known, n=3)
    if close:
        return f"; did you mean {' or '.join(map(repr, close))}?"
    return f"; it has: {', '.join(known) or 'none'}"


def algorithms() -> dict[str, AlgorithmSpec]:
    """Return all installed algorithms by name, each with the distribution that offers it."""
    found = by_key("torch_dag_algorithms", AlgorithmSpec)
    return {name: dataclasses.replace(spec, owner=owner) for name, (owner, spec) in sorted(found.items())}


def find_algorithm(name: str) -> AlgorithmSpec:
    """Return the installed algorithm of this name.

    Raises:
        UnknownAlgorithmError: no plugin offers it; the message lists similar or all names.
    """
    found = algorithms()
    if name not in found:
        hint = _suggestion(name, found) if found else "; no installed plugin offers any"
        message = f"no algorithm is called {name!r}{hint}"
        raise UnknownAlgorithmError(message)
    return found[name]
