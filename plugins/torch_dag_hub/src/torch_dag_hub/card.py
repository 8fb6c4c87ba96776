"""The model card: what is measured of a graph, and how to load it. It claims nothing else."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final

from torch_dag_core.cli.quantities import size
from torch_dag_core.graph.dag import DagModule
from torch_dag_core.graph.entry_checks import require_graphs
from torch_dag_core.plugins.discovery import distribution_version
from torch_dag_hub.card_file import BEGIN, END, merged
from torch_dag_hub.facts import GraphFacts
from torch_dag_hub.provenance import Recovery, Removal, recovery, removals
from torch_dag_hub.settings import SharingSettings

LIBRARY: Final = "torch-dag"
_MOST_WIDTHS = 200


def model_card(dag: DagModule, name: str, *, existing: str | None = None, **settings: Any) -> str:
    """Return the text of a model card, as `save_pretrained` writes it to ``README.md``.

    Args:
        dag: The graph.
        name: The id of its repository, or the name of its folder.
        existing: A card to put the generated section into; what its author wrote stays as it is.
        **settings: The fields of `SharingSettings`, by name.

    Raises:
        HubError: a setting is wrong, the provenance was damaged, or the existing card has no place for the section.
    """
    require_graphs("model_card()", dag)
    return card_text(GraphFacts.of(dag), name, existing, SharingSettings(**settings))


def card_text(facts: GraphFacts, name: str, existing: str | None, settings: SharingSettings) -> str:
    """Return the text of a model card from what was measured; see `model_card`."""
    section = _Section(facts, name, removals(facts.provenance), recovery(facts.provenance))
    return merged(existing, name.rpartition("/")[2], _metadata(facts, section, settings), str(section))


def _metadata(facts: GraphFacts, section: _Section, settings: SharingSettings) -> dict[str, Any]:
    tags = [LIBRARY, *(["pruned"] if section.removals else []), *(["timm"] if facts.image is not None else [])]
    given = dict(settings.metadata)
    known = settings.preprocessing.get("license")
    return {"library_name": LIBRARY, "tags": tags, **({"license": known} if known else {}), **given}


@dataclass(frozen=True)
class _Section:
    """The generated part of a card; ``str()`` gives its text."""

    facts: GraphFacts
    name: str
    removals: Sequence[Removal]
    recovery: Recovery | None

    def __str__(self) -> str:
        parts = (
            self._head(), _loading(self.name, self.facts), self._costs(), self._proofs(), self._repair(),
            self._widths(), self._versions(),
        )  # fmt: skip
        return "\n\n".join(part for part in parts if part)

    def _head(self) -> str:
        origin = f" made from {code(self.facts.model)}" if self.facts.model else ""
        pruned = ", and pruned: channels that were removed are not in the file" if self.removals else ""
        return (
            f"A model as a graph of torch-dag{origin}{pruned}. The file holds graph and weights; loading it executes "
            "none of its content and needs no source code of the model. Every number below was counted or measured."
        )

    def _costs(self) -> str:
        rows = [("this file", self.facts.flops, self.facts.parameters, "")]
        for number, removal in enumerate(self.removals, start=1):
            if number == 1:
                rows.insert(0, ("before pruning", removal.flops[0], removal.parameters[0], self._sizes(removal)))
            text = "after removing channels" + (f", step {number}" if len(self.removals) > 1 else "")
            rows.insert(-1, (text, removal.flops[1], removal.parameters[1], self._sizes(removal)))
        lines = [(text, _number(flops) + at, _number(parameters)) for text, flops, parameters, at in rows]
        sizes = " and ".join(_shape(spec.example_shape[1:]) for spec in self.facts.spec.tensors if spec.example_shape)
        note = f"FLOPs of one sample of {sizes}, 2 for a multiply-accumulate. " if sizes else ""
        table = _table(("", "FLOPs", "parameters"), lines)
        return f"## Cost\n\n{table}\n\n{note}Weights and buffers take {size(self.facts.nbytes)}."

    def _sizes(self, removal: Removal) -> str:
        """Return at which sizes the FLOPs of a removal were counted, if these are not the sizes of the graph."""
        own = [tuple(spec.example_shape or ())[1:] for spec in self.facts.spec.tensors]
        theirs = [shape[1:] for shape in removal.inputs]
        return "" if own == theirs else f" (of {' and '.join(map(_shape, theirs))})"

    def _proofs(self) -> str:
        if not self.removals:
            return ""
        rows = [(str(number), *_proof_cells(removal)) for number, removal in enumerate(self.removals, start=1)]
        heads = ("removal", "orbits", "vertices", "equal bit for bit", "largest difference", "precision", "change")
        return (
            "## Proof\n\nEach removal was compared with the model in which the same channels are masked, at every "
            f"vertex, before any training or repair that followed.\n\n{_table(heads, rows)}\n\nOrbits are sets of "
            "channels that go together: those that lost channels, of all. Differences are relative to the largest "
            "element of a value; change is that of the outputs, against the model before this removal."
        )

    def _repair(self) -> str:
        done = self.recovery
        if done is None:
            return ""
        return (
            f"## Repair without training\n\nAfter the last removal, {done.layers} layers were repaired by "
            f"{code(done.method)} on {done.samples} samples without labels ({done.skipped} layers were left as they "
            "are). The outputs differed from those of the model before pruning, on samples that were held out, by "
            f"{done.error_before:.2%} before the repair and by {done.error_after:.2%} after it."
        )

    def _widths(self) -> str:
        rows = [
            (str(number), code(key), str(left), str(before))
            for number, removal in enumerate(self.removals, start=1)
            for key, (left, before) in removal.widths.items()
        ]
        if not rows:
            return ""
        more = sum(removal.changed for removal in self.removals) - len(rows[:_MOST_WIDTHS])
        note = f"\n\n{more} more are not listed." if more else ""
        table = _table(("removal", "orbit", "channels", "of"), rows[:_MOST_WIDTHS])
        return f"<details>\n<summary>Channels that are left</summary>\n\n{table}{note}\n\n</details>"

    def _versions(self) -> str:
        versions = {name: version for removal in self.removals for name, version in removal.versions.items()}
        versions = {"torch-dag-core": distribution_version("torch-dag-core"), **versions}
        return f"Made with {', '.join(f'{name} {code(version)}' for name, version in sorted(versions.items()))}."


def _proof_cells(removal: Removal) -> tuple[str, ...]:
    orbits, proof = f"{removal.changed} of {removal.orbits}", removal.proof
    if proof is None:
        return orbits, "not compared", "", "", "", ""
    largest = f"{proof.worst:.1e} at {code(proof.vertex)}" if proof.vertex else f"{proof.worst:.1e}"
    return orbits, str(proof.vertices), str(proof.equal), largest, proof.dtype, f"{proof.effect:.1%}"


def _loading(name: str, facts: GraphFacts) -> str:
    needed = " ".join(["torch-dag-hub", *facts.needs])
    text = (
        f"## Load\n\n```\npip install {needed}\n```\n\n```python\nfrom torch_dag_hub import from_pretrained\n\n"
        f'model = from_pretrained("{name}")\n```'
    )
    if facts.image is None:
        return text
    prefix = "hf-hub" if "/" in name else "local-dir"
    return (
        f"{text}\n\nWith timm (`pip install torch-dag-hub[timm]`):\n\n```python\nimport timm\n"
        f'import torch_dag_hub.with_timm\n\nmodel = timm.create_model("{prefix}:{name}")\n```'
    )


def _table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [heads, ["---"] * len(heads), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _number(value: int | None) -> str:
    return "not known" if value is None else f"{value:,}"


def _shape(shape: Sequence[int]) -> str:
    return "x".join(map(str, shape)) or "one number"


def code(text: str) -> str:
    """Return a text from a file as code in one cell of a table, which cannot end the cell, the code or the section."""
    plain = " ".join(text.split()).replace("`", "'").replace("|", "\\|")
    for marker in (BEGIN, END):
        plain = plain.replace(marker, "")
    return f"`{plain or ' '}`"
