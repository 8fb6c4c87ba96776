"""Models of transformers: built by name, converted with the plugin's example inputs, called with a mask, reloaded."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from torch_dag_core.conversion.convert import build_from_unstructured_module
from torch_dag_core.errors import ModelReferenceError
from torch_dag_core.plugins.loading import first_answer, list_plugins
from torch_dag_core.serialization import load

pytest.importorskip("torch_dag_transformers")

KINDS = [
    "bert", "roberta", "distilbert", "albert", "deberta-v2", "modernbert", "bart", "t5", "gpt2", "llama", "qwen2",
    "gemma", "phi", "opt", "mixtral", "clip", "vit", "falcon", "gpt_neo", "gptj", "convnext", "timesformer",
    "audio-spectrogram-transformer",
]  # fmt: skip


def model_source(reference, **options):
    return first_answer("torch_dag_model_source", nn.Module, reference=reference, options=options)


def example_inputs(model):
    return first_answer("torch_dag_example_inputs", tuple, model=model)


def test_the_plugin_loads_with_or_without_transformers():
    (info,) = [info for info in list_plugins() if info.name == "transformers"]
    assert info.error is None
    assert set(info.hooks) == {"torch_dag_example_inputs", "torch_dag_model_lists", "torch_dag_model_source"}
    assert example_inputs(nn.Linear(2, 2)) is None


def test_without_transformers_the_error_says_what_to_install(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "transformers", None)
    with pytest.raises(ModelReferenceError, match=r"needs transformers; pip install 'torch-dag-transformers\[transf"):
        model_source("transformers:bert")


def inputs_of(model, batch):
    """Return the plugin's example as a batch of this size, with padding at the end of the first sample."""
    _, given = example_inputs(model)
    made = {}
    for name, value in given.items():
        resized = value.repeat(batch, *[1] * (value.dim() - 1))[:batch] if torch.is_tensor(value) else value
        made[name] = torch.randn(resized.shape) if torch.is_tensor(value) and value.is_floating_point() else resized
    if "attention_mask" in made:
        made["attention_mask"][0, -2:] = 0
    return made


def tensors_of(result):
    return [leaf for leaf in torch.utils._pytree.tree_leaves(result) if torch.is_tensor(leaf)]


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", KINDS)
def test_models_are_the_same_at_other_batch_sizes_and_after_reload(kind, tmp_path):
    pytest.importorskip("transformers")
    torch.manual_seed(0)
    model = model_source(f"transformers:{kind}").eval()
    build_from_unstructured_module(model).save(tmp_path / "dag.safetensors")
    dag = load(tmp_path / "dag.safetensors").eval()
    for batch in (1, 3):
        inputs = inputs_of(model, batch)
        with torch.no_grad():
            expected, actual = model(**inputs), dag(**inputs)
        assert list(actual.keys()) == list(expected.keys())
        pairs = list(zip(tensors_of(expected), tensors_of(actual), strict=True))
        assert pairs
        for theirs, ours in pairs:
            torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-6)


@pytest.mark.filterwarnings("ignore")
def test_options_change_configuration_and_head():
    pytest.importorskip("transformers")
    model = model_source("transformers:gpt2", n_layer=1, auto="AutoModelForCausalLM")
    assert (type(model).__name__, len(model.transformer.h)) == ("GPT2LMHeadModel", 1)
    dag = build_from_unstructured_module(model.eval())
    ids = torch.arange(1, 9).repeat(2, 1)
    result = dag(input_ids=ids, attention_mask=torch.ones_like(ids))
    assert list(result) == ["logits"]
    assert result[0].shape == (2, 8, 1000)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("reference", "options", "message"),
    [
        ("transformers:brt", {}, "has no model type 'brt'; did you mean: .*bert"),
        ("transformers:bert", {"hidden_size": 65}, "cannot be built with .*hidden_size"),
        ("transformers:bert", {"auto": "AutoNothing"}, "cannot be built with .*AutoNothing"),
    ],
)
def test_references_that_lead_nowhere(reference, options, message):
    pytest.importorskip("transformers")
    with pytest.raises(ModelReferenceError, match=message):
        model_source(reference, **options)


@pytest.mark.filterwarnings("ignore")
def test_a_large_model_without_weights_is_converted_from_its_configuration():
    transformers = pytest.importorskip("transformers")
    config = transformers.LlamaConfig(num_hidden_layers=4, use_cache=False)
    with torch.device("meta"):
        model = transformers.LlamaModel(config)
    ids = torch.ones(2, 8, dtype=torch.int64)
    dag = build_from_unstructured_module(model.eval(), {"input_ids": ids, "attention_mask": ids})
    assert sum(parameter.numel() for parameter in dag.parameters()) == sum(p.numel() for p in model.parameters())
    assert all(parameter.is_meta for parameter in dag.parameters())
