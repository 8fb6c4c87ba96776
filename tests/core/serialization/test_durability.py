"""A crash leaves the old file or the new one; loading takes no more than twice the file's size."""

from __future__ import annotations

import errno
import json
import os
import socket
import stat
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from torch_dag_core import atomic_files
from torch_dag_core.errors import SerializationError
from torch_dag_core.graph.builtin_ops import Constant
from torch_dag_core.graph.dag import DagModule
from torch_dag_core.serialization import load, save, writer

KILLS = 50

PRELUDE = """
import json, os, random, resource, signal, sys, time, tracemalloc
import torch
from torch_dag_core.plugins.codecs import ClassCodec
from torch_dag_core.graph.dag import DagModule
from torch_dag_core.graph.builtin_ops import Constant
from torch_dag_core.plugins.registry import OpSpec, Registry
from torch_dag_core.serialization import load, save

torch.set_num_threads(1)
path, registry = sys.argv[1], Registry()
registry.add(OpSpec(key="test.constant", target=Constant, codec=ClassCodec(Constant)), owner="test")

def graph(version, count, numel):
    dag = DagModule()
    for index in range(count):
        value = torch.full((numel,), float(version))
        dag.add_vertex(f"held{index}", Constant(value.shape, value.dtype, value=value))
    dag.set_outputs([], [])
    dag.provenance = {"version": version}
    return dag
"""

KILLED = (
    PRELUDE
    + """
def save_forever(first, started):
    version = first
    while True:
        save(graph(version, 4, 100_000), path, registry=registry)
        if version == first:
            os.write(started, b".")
        version += 1

def check():
    dag = load(path, registry=registry)
    version = dag.provenance["version"]
    assert all(bool((v.module.value == version).all()) for v in dag.inner_vertices)
    return version

random.seed(0)
save(graph(0, 4, 100_000), path, registry=registry)
found = [check()]
for _ in range(int(sys.argv[2])):
    waiting, started = os.pipe()
    child = os.fork()
    if child == 0:
        save_forever(found[-1] + 1, started)
    os.close(started)
    assert os.read(waiting, 1) == b".", "the child died before its first file stood"
    os.close(waiting)
    time.sleep(random.uniform(0.0, 0.04))
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    found.append(check())
print(json.dumps(found))
"""
)

MEASURED = (
    PRELUDE
    + """
def peak():
    # Not getrusage: its maximum is inherited from the process that started this one.
    with open("/proc/self/status") as status:
        return 1024 * next(int(line.split()[1]) for line in status if line.startswith("VmHWM"))

save(graph(1, 1, 4), path + ".small", registry=registry)
load(path + ".small", registry=registry)
dag = graph(1, 16, 1_000_000)
before = peak()
save(dag, path, registry=registry)
saving = peak() - before
del dag
ballast = torch.ones(16, 1_000_000)
before = peak()
del ballast
with open("/proc/self/statm") as statm:
    resident = int(statm.read().split()[1]) * resource.getpagesize()
tracemalloc.start()
loaded = load(path, registry=registry)
python = tracemalloc.get_traced_memory()[1]
loading = peak() - min(resident, before)
print(json.dumps({"saving": saving, "loading": loading, "python": python, "file": os.path.getsize(path)}))
"""
)


def run(script, *arguments):
    done = subprocess.run(
        [sys.executable, "-c", script, *map(str, arguments)], capture_output=True, text=True, check=False, timeout=120,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="kills forked processes")
def test_killed_while_saving_leaves_a_whole_file(tmp_path):
    path = tmp_path / "file.safetensors"
    versions = run(KILLED, path, KILLS)
    assert len(versions) == KILLS + 1
    assert versions == sorted(versions)
    assert versions[-1] > 0
    others = [entry.name for entry in tmp_path.iterdir() if entry != path]
    # Some kills hit in the middle of writing; what they leave cannot be taken for a result.
    assert others
    assert all(name.startswith(".file.safetensors.") and name.endswith(".tmp") for name in others)


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="reads resident memory from /proc")
def test_loading_takes_at_most_twice_the_file(tmp_path):
    measured = run(MEASURED, tmp_path / "file.safetensors")
    slack = 8_000_000
    assert measured["file"] > 64_000_000
    assert measured["loading"] < 2 * measured["file"] + slack
    assert measured["saving"] < measured["file"] + slack
    assert measured["python"] < 2_000_000


def graph(value):
    dag = DagModule()
    dag.set_output(dag.add_vertex("held", Constant((2,), torch.float32, value=torch.full((2,), value))))
    return dag


def value(path, registry):
    return load(path, registry=registry).get_vertex_by_name("held").module.value[0].item()


def test_failed_write_keeps_the_old_file_and_cleans_up(tmp_path, registry, monkeypatch):
    path = tmp_path / "file.safetensors"
    save(graph(1.0), path, registry=registry)

    def fail(tensors, filename, metadata):
        filename.write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(writer, "save_file", fail)
    with pytest.raises(OSError, match="No space left"):
        save(graph(2.0), path, registry=registry)
    assert [entry.name for entry in tmp_path.iterdir()] == [path.name]
    assert value(path, registry) == 1.0


def test_refused_graph_leaves_the_old_file(tmp_path, registry):
    path = tmp_path / "file.safetensors"
    save(graph(1.0), path, registry=registry)
    content = path.read_bytes()
    with pytest.raises(SerializationError):
        save(torch.nn.Linear(2, 2), path, registry=registry)
    assert path.read_bytes() == content


def test_saving_through_a_link_keeps_the_link(tmp_path, registry):
    path, link = tmp_path / "file.safetensors", tmp_path / "link.safetensors"
    save(graph(1.0), path, registry=registry)
    link.symlink_to(path)
    save(graph(2.0), link, registry=registry)
    assert link.is_symlink()
    assert value(path, registry) == 2.0


def test_stale_temporary_files_are_removed_and_young_ones_kept(tmp_path, registry):
    path = tmp_path / "file.safetensors"
    stale, young = (tmp_path / f".file.safetensors.{digit * 16}.tmp" for digit in "12")
    names = (".file.safetensors.bak.tmp", f".other.safetensors.{'1' * 16}.tmp", "notes.tmp")
    foreign = [tmp_path / name for name in names]
    busy = tmp_path / f".file.safetensors.{'3' * 16}.tmp"
    long_ago = time.time() - 2 * 3600
    for leftover in (stale, young, busy, *foreign):
        leftover.mkdir()
        (leftover / "content").write_bytes(b"")
    for old in (stale / "content", stale, busy, *foreign):
        os.utime(old, (long_ago, long_ago))
    save(graph(1.0), path, registry=registry)
    assert not stale.exists()
    assert all(kept.exists() for kept in (young, busy, *foreign))


def test_permissions_are_those_of_any_new_file_or_of_the_file_before(tmp_path, registry):
    path, plain = tmp_path / "file.safetensors", tmp_path / "plain"
    save(graph(1.0), path, registry=registry)
    plain.write_bytes(b"")
    assert path.stat().st_mode == plain.stat().st_mode
    path.chmod(0o640)
    save(graph(2.0), path, registry=registry)
    assert path.stat().st_mode & 0o777 == 0o640


def test_overwriting_the_file_that_was_loaded(tmp_path, registry):
    path = tmp_path / "file.safetensors"
    save(graph(1.0), path, registry=registry)
    loaded = load(path, registry=registry)
    loaded.get_vertex_by_name("held").module.value.add_(2.0)
    save(loaded, path, registry=registry)
    assert value(path, registry) == 3.0


def make_pipe(path):
    os.mkfifo(path)
    return path


def make_link_to_pipe(path):
    path.symlink_to(make_pipe(path.with_name("pipe")))
    return path


def make_socket(path):
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(path))
    return path


def make_folder(path):
    path.mkdir()
    return path


def make_loop(path):
    path.symlink_to(path)
    return path


NO_FILES = {
    "pipe": (make_pipe, "it is a named pipe, not a file"),
    "link to a pipe": (make_link_to_pipe, "it is a named pipe, not a file"),
    "socket": (make_socket, "it is a socket, not a file"),
    "folder": (make_folder, "it is a folder, not a file"),
    "loop": (make_loop, "Too many levels of symbolic links"),
    "file in no folder": (lambda path: path / "x", "there is no folder .*create it first"),
    "file in a file": (lambda path: path.write_bytes(b"") or path / "x", "is not a folder"),
}


def refuse_work(*_):
    raise AssertionError


@pytest.mark.skipif(os.name != "posix", reason="makes pipes and sockets")
@pytest.mark.parametrize("kind", NO_FILES)
def test_what_is_no_file_is_refused_before_any_work(tmp_path, monkeypatch, registry, kind):
    make, match = NO_FILES[kind]
    monkeypatch.chdir(tmp_path)  # the path of a socket is short
    path = make(Path("x"))
    before = {entry: entry.lstat().st_mode for entry in Path().iterdir()}
    monkeypatch.setattr(writer, "describe", refuse_work)
    for write in (lambda: save(graph(1.0), path, registry=registry), lambda: atomic_files.write_text(path, "text")):
        with pytest.raises(OSError, match=match):
            write()
    assert {entry: entry.lstat().st_mode for entry in Path().iterdir()} == before


@pytest.mark.parametrize("kind", [stat.S_IFCHR, stat.S_IFBLK])
def test_a_device_is_refused(tmp_path, monkeypatch, registry, kind):
    path = tmp_path / "device"
    path.write_bytes(b"old")
    real = Path.stat

    def pretend(self, **options):
        found = real(self, **options)
        return os.stat_result((kind | 0o666, *found[1:])) if self.name == "device" else found

    monkeypatch.setattr(Path, "stat", pretend)
    with pytest.raises(OSError, match="it is a device, not a file") as caught:
        save(graph(1.0), path, registry=registry)
    assert caught.value.errno == errno.EINVAL
    assert path.read_bytes() == b"old"


def test_what_turns_into_a_pipe_meanwhile_is_not_replaced(tmp_path):
    path = tmp_path / "file"
    replacing = atomic_files.replacing(path)
    replacing.__enter__().write_text("new")
    os.mkfifo(path)
    with pytest.raises(OSError, match="it is a named pipe"):
        replacing.__exit__(None, None, None)
    assert stat.S_ISFIFO(path.lstat().st_mode)
    assert list(tmp_path.iterdir()) == [path]


def test_a_link_to_a_file_that_is_not_there_makes_the_file(tmp_path, registry):
    path, link = tmp_path / "file.safetensors", tmp_path / "link.safetensors"
    link.symlink_to(path)
    save(graph(2.0), link, registry=registry)
    assert link.is_symlink()
    assert value(path, registry) == 2.0


def test_texts_are_written_as_graphs_are(tmp_path):
    path = tmp_path / "file.txt"
    atomic_files.write_text(path, "one")
    path.chmod(0o640)
    atomic_files.write_text(path, "zwei ü")
    assert path.read_text(encoding="utf-8") == "zwei ü"
    assert path.stat().st_mode & 0o777 == 0o640
    assert list(tmp_path.iterdir()) == [path]
