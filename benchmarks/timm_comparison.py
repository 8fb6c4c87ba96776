"""Convert one timm model after the other and compare each with its source: names come in on stdin, results go out.

This is the worker of ``timm_coverage.py``: it may crash or hang without taking the survey with it.
"""

from __future__ import annotations

import copy
import json
import re
import sys
import time
from collections import Counter
from collections.abc import Iterator
from typing import Any

import timm
import torch
from torch import Tensor, nn

from torch_dag_core.conversion.convert import build_from_unstructured_module
from torch_dag_core.errors import InputError
from torch_dag_timm.example_inputs import example_inputs

SMALL = 160
ODD = (171, 205)
AWAKE = 0.02
UNUSUAL = ("TorchCall", "TrainingSwitch", "Random", "State", "SetIndex", "Where", "Full")


def without_folders(text: str) -> str:
    """Name a file of a package from the package on, not from the root of this machine."""
    return re.sub(r"/\S*?/site-packages/", "", text)


def wake_up(model: nn.Module) -> None:
    """Move every parameter off its start, so that no zero-initialised branch hides a wrong one."""
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * AWAKE)
        for name, buffer in model.named_buffers():
            if name.endswith("running_mean"):
                buffer.normal_(0.0, 0.1)
            elif name.endswith("running_var"):
                buffer.uniform_(0.5, 1.5)


def tensors(value: Any) -> Iterator[Tensor]:
    """Iterate over the tensors in an output."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, (tuple, list)):
        for item in value:
            yield from tensors(item)
    elif isinstance(value, dict):
        for item in value.values():
            yield from tensors(item)


def difference(expected: Any, found: Any) -> float:
    """Return the largest difference over all outputs, relative to the largest element of its output."""
    pairs = list(zip(tensors(expected), tensors(found), strict=True))
    return max(float((a - b).abs().max() / a.abs().max().clamp(min=1e-30)) for a, b in pairs)


def says_nothing(output: Any) -> str:
    """Return why a comparison of this output would prove nothing, or an empty string."""
    flat = torch.cat([tensor.detach().float().flatten() for tensor in tensors(output)])
    if not torch.isfinite(flat).all():
        return "the source's output is not finite"
    return "the source's output is constant" if float(flat.std()) == 0 else ""


def run(model: nn.Module, image: Tensor) -> Any:
    """Run without gradients and always with the same draws."""
    torch.manual_seed(1)
    with torch.no_grad():
        return model(image)


def fails(model: nn.Module, image: Tensor) -> bool:
    """Tell whether a model refuses this size."""
    try:
        run(model, image)
    except Exception:  # noqa: BLE001
        return True
    return False


def compare(model: nn.Module, dag: nn.Module, example: Tensor, row: dict[str, Any]) -> None:
    """Fill in the errors in evaluation at batch 1 and 3, at an odd size, and in training."""
    channels, *space = example.shape[1:]
    small = torch.zeros(1, channels, SMALL, SMALL)
    if row["free_space"] and min(space) > SMALL and not (fails(model, small) or fails(dag, small)):
        space = [SMALL, SMALL]
    for batch in (1, 3):
        image = torch.randn(batch, channels, *space)
        expected = run(model, image)
        row[f"error_batch_{batch}"] = difference(expected, run(dag, image))
        row["reason"] = row["reason"] or says_nothing(expected)
    if row["free_space"]:
        row["odd_size"] = at_odd_size(model, dag, channels)
    twins = copy.deepcopy(model).train(), dag.train()
    image = torch.randn(4, channels, *space)
    row["error_training"] = difference(*(run(twin, image) for twin in twins))


def at_odd_size(model: nn.Module, dag: nn.Module, channels: int) -> Any:
    """Return the error at a size that is a multiple of nothing, ``refused``, or ``source fails``."""
    image = torch.randn(1, channels, *ODD)
    if fails(model, image):
        return "source fails"
    try:
        return difference(run(model, image), run(dag, image))
    except InputError:
        return "refused"


def examine(name: str, *, compares: bool) -> dict[str, Any]:
    """Convert one model and describe the outcome."""
    torch.manual_seed(0)
    model = timm.create_model(name).eval()
    wake_up(model)
    (example,) = example_inputs(model) or (torch.zeros(2, 3, 224, 224),)
    row: dict[str, Any] = {"model": name, "input": "x".join(map(str, example.shape[1:])), "reason": ""}
    row["parameters_M"] = round(sum(p.numel() for p in model.parameters()) / 1e6, 2)
    start = time.process_time()
    dag = build_from_unstructured_module(model, example)
    row["cpu_seconds"] = round(time.process_time() - start, 2)
    kinds = Counter(type(vertex.module).__name__ for vertex in dag.inner_vertices)
    row["vertices"] = len(dag.inner_vertices)
    row["torch_calls"] = kinds["TorchCall"]
    row["unusual"] = " ".join(f"{kind}:{kinds[kind]}" for kind in UNUSUAL if kinds[kind])
    row["functions"] = " ".join(
        sorted({v.module.function for v in dag.inner_vertices if type(v.module).__name__ == "TorchCall"})
    )
    shape = dag.input_spec.tensors[0].shape
    row["free_batch"], row["free_space"] = shape[0] is None, shape[-1] is None
    row["notes"] = without_folders("; ".join(dag.input_spec.notes))[:200]
    row["other_keys"] = sum(map(len, dag.load_state_dict(model.state_dict(), strict=False)))
    if compares:
        try:
            compare(model, dag, example, row)
        except Exception as error:  # noqa: BLE001
            row["reason"] = without_folders(f"comparison failed: {type(error).__name__}: {error}")[:300]
    return row


def main() -> None:
    """Answer each line (a name, and whether to compare) with one line of JSON."""
    answers = sys.stdout
    sys.stdout = sys.stderr
    for line in sys.stdin:
        name, compares = json.loads(line)
        try:
            row = examine(name, compares=compares)
        except Exception as error:  # noqa: BLE001
            row = {"model": name, "reason": without_folders(f"{type(error).__name__}: {error}")[:300]}
        print(json.dumps(row), file=answers, flush=True)


if __name__ == "__main__":
    main()
