"""Learned pruning inside Lightning, transformers, accelerate and timm: the examples, checkpoints, refusals."""

from __future__ import annotations

import copy
import importlib
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from torch_dag_core.errors import SettingsError
from torch_dag_pruning import analyze

EXAMPLES = Path(__file__).parents[3] / "examples"
NEEDED = {
    "plain_pytorch": "torch", "timm_task": "timm.task", "accelerate_loop": "accelerate",
    "lightning_callback": "lightning.pytorch", "transformers_trainer": "transformers",
}  # fmt: skip
# What the frameworks themselves warn of.
pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture
def example(monkeypatch):
    """Import an example as if it was run, or skip the test if its framework is not installed."""
    monkeypatch.syspath_prepend(str(EXAMPLES))

    def load(name):
        pytest.importorskip(NEEDED[name])
        for known in ("small_network", name):
            sys.modules.pop(known, None)
        return importlib.import_module(name)

    return load


def cost_is_halved(pruned, learning):
    return analyze(pruned).cost() <= 0.5 * analyze(learning.model).cost()


def equal(one, other):
    assert one.keys() == other.keys()
    return all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize("name", NEEDED)
def test_the_example_prunes(example, name):
    module = example(name)
    pruned = module.main() if name == "plain_pytorch" else module.result()
    assert cost_is_halved(pruned, importlib.import_module("small_network").pruning(1))


@pytest.mark.parametrize("name", ["accelerate_loop", "timm_task"])  # the others shuffle and clip
def test_a_framework_learns_what_the_plain_loop_learns(example, name):
    example("plain_pytorch")
    small = importlib.import_module("small_network")
    learning = small.pruning(8)
    network = learning.prepare().train()
    optimizer = torch.optim.AdamW(network.parameters(), 1e-2)
    learning.attach(optimizer)
    batches = list(small.loader(samples=128 if name == "accelerate_loop" else 64))
    parts = 2 if name == "accelerate_loop" else 1
    for at in range(0, len(batches), parts):
        for images, labels in batches[at : at + parts]:
            ((torch.nn.functional.cross_entropy(learning.network(images), labels) + learning.loss()) / parts).backward()
        optimizer.step()
        learning.step()
        optimizer.zero_grad()
    found = example(name).result().state_dict()
    torch.testing.assert_close(dict(found), dict(learning.finalize().state_dict()), rtol=1e-4, atol=1e-5)


# Checkpoints ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("at", [3, 7])
def test_lightning_continues_from_a_checkpoint(example, at, tmp_path):
    module = example("lightning_callback")
    # One batch an epoch: a loader without a state starts anew in the middle of an epoch.
    _, straight = module.main(samples=8)
    trainer, _ = module.main(at, samples=8)
    trainer.save_checkpoint(tmp_path / "at.ckpt")
    _, resumed = module.main(checkpoint=str(tmp_path / "at.ckpt"), samples=8)
    assert resumed.network.pruning.steps_done == 8
    assert straight.network.pruning.plan == resumed.network.pruning.plan
    assert equal(straight.network.network.state_dict(), resumed.network.network.state_dict())


@pytest.mark.parametrize("at", [3, 7])
def test_transformers_continues_from_a_checkpoint(example, at, tmp_path):
    module = example("transformers_trainer")
    options = {"save_strategy": "steps", "save_steps": at}
    straight = module.trainer(str(tmp_path), **options)
    straight.train()
    resumed = module.trainer(str(tmp_path / "other"))
    resumed.train(resume_from_checkpoint=str(tmp_path / f"checkpoint-{at}"))
    assert resumed.pruning.steps_done == straight.pruning.steps_done == 8
    assert straight.pruning.plan == resumed.pruning.plan
    assert equal(straight.pruning.finalize().state_dict(), resumed.pruning.finalize().state_dict())


@pytest.mark.parametrize("at", [3, 7])
def test_accelerate_continues_from_a_checkpoint(example, at, tmp_path):
    module = example("accelerate_loop")
    batches = list(importlib.import_module("small_network").loader(64))

    def started():
        accelerator = module.Accelerator(cpu=True)
        return accelerator, *module.started(accelerator)

    accelerator, straight, optimizer = started()
    module.train(accelerator, straight, optimizer, batches[:at])
    accelerator.save_state(str(tmp_path))
    module.train(accelerator, straight, optimizer, batches[at:])
    accelerator, resumed, optimizer = started()
    accelerator.load_state(str(tmp_path))
    module.train(accelerator, resumed, optimizer, batches[at:])
    assert equal(straight.network.network.state_dict(), resumed.network.network.state_dict())


@pytest.mark.parametrize("at", [3, 7])
def test_timm_continues_from_a_checkpoint(example, at):
    module = example("timm_task")
    batches = list(importlib.import_module("small_network").loader(64))
    straight, optimizer = module.started()
    module.train(straight, optimizer, batches[:at])
    state = copy.deepcopy(straight.get_checkpoint_state() if not straight.has_ema() else {})
    moments = copy.deepcopy(optimizer.state_dict())
    module.train(straight, optimizer, batches[at:])
    resumed, optimizer = module.started()
    resumed.load_checkpoint_state(state["state_dict"], state["task_state"])
    optimizer.load_state_dict(moments)
    module.train(resumed, optimizer, batches[at:])
    assert equal(straight.network.network.state_dict(), resumed.network.network.state_dict())


# timm's own parts -----------------------------------------------------------------------------------------------


def test_the_averaged_copy_of_timm_is_cut_with_its_own_weights(example):
    module = example("timm_task")
    task, optimizer = module.started()
    task.setup_ema(decay=0.5)
    module.train(task, optimizer, importlib.import_module("small_network").loader(64))
    own, averages = task.network.network.state_dict(), task.get_eval_model(ema=True).module.network.state_dict()
    assert {name: tensor.shape for name, tensor in own.items()} == {n: t.shape for n, t in averages.items()}
    assert not torch.equal(own["0.weight"], averages["0.weight"])
    assert torch.isfinite(task.get_eval_model(ema=True)(torch.randn(2, 3, 8, 8))).all()


def weights_after(module, change):
    """Return the weights after a training whose task is changed first."""
    task, optimizer = module.started()
    change(task)
    module.train(task, optimizer, importlib.import_module("small_network").loader(64))
    assert task.network.pruning.cut is not None
    return dict(task.network.network.state_dict())


def test_the_wrapper_of_timm_is_made_anew_around_the_cut_network(example, tmp_path):
    module = example("timm_task")
    store = torch.distributed.FileStore(str(tmp_path / "store"), 1)
    torch.distributed.init_process_group("gloo", store=store, rank=0, world_size=1)
    try:
        wrapped = weights_after(module, lambda task: task.prepare_distributed(broadcast_buffers=False))
    finally:
        torch.distributed.destroy_process_group()
    torch.testing.assert_close(wrapped, weights_after(module, lambda task: None), rtol=1e-4, atol=1e-5)


def test_a_compiled_task_of_timm_is_pruned(example):
    module = example("timm_task")
    torch._dynamo.reset()
    compiled = weights_after(module, lambda task: task.compile(backend="aot_eager"))
    torch.testing.assert_close(compiled, weights_after(module, lambda task: None), rtol=1e-3, atol=1e-4)


def test_a_distillation_task_of_timm_is_pruned(example):
    module = example("timm_task")
    from timm.task import LogitDistillationTask

    from torch_dag_training.with_timm import describe_

    small = importlib.import_module("small_network")
    network = module.PrunableNetwork(small.pruning(8))
    teacher = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(192, 5))
    teacher.num_classes, teacher.in_chans = 5, 3
    teacher.pretrained_cfg = {"mean": (0.5,) * 3, "std": (0.5,) * 3}
    describe_(network, teacher)
    inner = LogitDistillationTask(
        network, teacher, criterion=torch.nn.CrossEntropyLoss(), loss_type="kl", verbose=False
    )  # fmt: skip
    task = module.PruningTask(inner, network)
    optimizer = torch.optim.SGD(network.parameters(), 0.01)
    task.attach(optimizer)
    module.train(task, optimizer, small.loader(64))
    assert cost_is_halved(network.pruning.finalize(), network.pruning)


# Refusals -------------------------------------------------------------------------------------------------------


def test_a_cut_inside_of_wrappers_that_stay_is_refused(example):
    example("plain_pytorch")
    from torch_dag_training.network import require_one_process

    small = importlib.import_module("small_network")
    with pytest.raises(SettingsError, match=r"on 2 processes .* pass freeze_at=1\.0 instead of 0\.7"):
        require_one_process(small.pruning(8), 2, "Lightning")
    require_one_process(small.pruning(8, freeze_at=1.0), 2, "Lightning")
    require_one_process(small.pruning(8), 1, "Lightning")


def test_a_module_without_a_network_to_prune_is_refused(example):
    module = example("lightning_callback")
    callback = module.ChannelPruningCallback("backbone")
    wrong = module.Classifier(importlib.import_module("small_network").pruning(8))
    with pytest.raises(SettingsError, match=r"Classifier\.backbone must be a StatefulNetwork, got NoneType"):
        callback._network(wrong)


def test_a_task_of_another_model_is_refused(example):
    module = example("timm_task")
    network = module.PrunableNetwork(importlib.import_module("small_network").pruning(8))
    inner = module.ClassificationTask(torch.nn.Flatten(), torch.nn.CrossEntropyLoss(), verbose=False)
    with pytest.raises(SettingsError, match="the model of ClassificationTask must be the PrunableNetwork"):
        module.PruningTask(inner, network)


def test_a_used_pruning_takes_no_checkpoint_of_another_step(example):
    module = example("timm_task")
    task, optimizer = module.started()
    state = task.network.pruning.state_dict()
    module.train(task, optimizer, importlib.import_module("small_network").loader(24))
    with pytest.raises(SettingsError, match="the checkpoint is of step 0, this pruning at 3"):
        task.network.load_pruning(state)


@pytest.mark.parametrize("name", ["lightning", "transformers", "accelerate", "timm"])
def test_a_missing_framework_is_named_with_the_command_that_installs_it(name):
    code = (
        f"import sys\nfor each in ('{name}', '{name}.pytorch', '{name}.task'): sys.modules[each] = None\n"
        f"try: import torch_dag_training.with_{name}\nexcept ImportError as error: print(error)"
    )
    printed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert f"pip install torch-dag-training[{name}]" in printed


def test_the_package_imports_no_framework():
    code = (
        "import sys, torch_dag_training\n"
        "print([name for name in ('lightning', 'transformers', 'accelerate', 'timm') if name in sys.modules])"
    )
    printed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert printed.strip() == "[]"


# Several processes ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["plain_pytorch", "accelerate_loop"])
def test_two_processes_prune(example, name, tmp_path):
    example(name)
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    apart = ["--redirects", "3", "--log-dir", str(tmp_path)]
    command = [sys.executable, *launcher, *apart, str(EXAMPLES / f"{name}.py")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    first, second = (
        [line for line in path.read_text().splitlines() if not line.startswith("[Gloo]")]  # which names its process
        for path in tmp_path.rglob("stdout.log")
    )
    assert first == second != []
    assert "DagModule(" in first
