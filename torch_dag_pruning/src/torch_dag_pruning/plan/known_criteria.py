"""All criteria that there are, by name: the library's own, and those of plugins."""

from __future__ import annotations

from typing import Final

from torch_dag_core.plugins.calling import is_foreign, release_name
from torch_dag_core.plugins.loading import add_hookspecs, by_key
from torch_dag_pruning import hookspecs
from torch_dag_pruning.errors import PlanError
from torch_dag_pruning.plan.criteria import ImportanceCriterion, Magnitude, Random
from torch_dag_pruning.plan.data_criteria import BY_DATA
from torch_dag_pruning.plan.weight_criteria import BatchNormScale, GeometricMedian
from torch_dag_pruning.statistics.statistics import Statistics

BUILT_IN: Final[tuple[ImportanceCriterion, ...]] = (
    Magnitude("l1", 1), Magnitude("l2", 2), BatchNormScale(), GeometricMedian(), Random(), *BY_DATA,
)  # fmt: skip


_HOOK: Final = "torch_dag_importance_criteria"


def criterion_named(name: str) -> ImportanceCriterion:
    """Return the criterion that some plugin offers under a name.

    Raises:
        PlanError: neither the library nor a plugin offers it.
    """
    own = {criterion.name: criterion for criterion in BUILT_IN}
    found = own | {key: criterion for key, (_, criterion) in _offered().items()}
    if name not in found:
        message = f"there is no importance criterion {name!r}; there are {', '.join(sorted(found))}"
        raise PlanError(message)
    return found[name]


def _offered() -> dict[str, tuple[str, ImportanceCriterion]]:
    """Return the criteria of plugins by name, each with its distribution."""
    add_hookspecs(hookspecs)
    return by_key(_HOOK, ImportanceCriterion, taken=[criterion.name for criterion in BUILT_IN])  # type: ignore[type-abstract]


def described(criterion: ImportanceCriterion) -> str:
    """Return a criterion in words, for errors: its name, and the plugin that offers it, if one does."""
    what, owner = f"the criterion {criterion.name!r}", owner_of(criterion)
    return f"{what} of {release_name(owner)}" if is_foreign(owner) else what


def owner_of(criterion: ImportanceCriterion) -> str:
    """Return the distribution of the plugin that offers criteria of this class; empty where none does."""
    return next((owner for owner, offered in _offered().values() if type(offered) is type(criterion)), "")


def with_statistics(criterion: ImportanceCriterion, statistics: Statistics | None) -> ImportanceCriterion:
    """Return a criterion that knows the statistics, if it looks at data."""
    given = getattr(criterion, "given", None)
    return criterion if given is None or statistics is None else given(statistics)


def looks_at_data(criterion: ImportanceCriterion) -> bool:
    """Tell whether a criterion still needs statistics."""
    return hasattr(criterion, "given") and getattr(criterion, "statistics", None) is None


def needs_gradients(criterion: ImportanceCriterion) -> bool:
    """Tell whether the statistics of a criterion must hold gradients of masks."""
    return bool(getattr(criterion, "needs_gradients", False))


def is_comparable(criterion: ImportanceCriterion) -> bool:
    """Tell whether a criterion's scores of different orbits can be compared; those of plugins only if they say so."""
    return bool(getattr(criterion, "is_comparable", False))
