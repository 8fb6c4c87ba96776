"""What ``torch-dag new-plugin`` writes is built, installed, and passes its own tests at once."""

from __future__ import annotations


def test_a_new_plugin_passes_its_tests_at_once(environments, tmp_path):
    environments("core", "pruning").run("torch-dag", "new-plugin", "acme-blur", "--directory", tmp_path)
    package = tmp_path / "torch-dag-acme-blur"
    environment = environments("core", "pruning", package)
    result = environment.run("python", "-m", "pytest", "-v", "-p", "no:cacheprovider", "-W", "error", package)
    assert "test_contract[acme_blur.acme_blur-0-prunes] PASSED" in result.stdout
    assert "test_zeros_stay_zeros PASSED" in result.stdout
    assert "acme-blur" in environment.run("torch-dag", "plugins").stdout
