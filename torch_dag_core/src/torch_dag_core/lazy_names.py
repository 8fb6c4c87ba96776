"""Packages whose public names are imported when the first of them is used.

``import torch_dag_core`` is cheap that way, and a command can show its help without importing torch.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from typing import Any


def lazy_names(package: str, *, distribution: str) -> tuple[Callable[[str], Any], Callable[[], list[str]]]:
    """Return the ``__getattr__`` and ``__dir__`` of a package whose public names are those of its module ``api``.

    ``__all__`` is that of ``api``, and ``__version__`` the installed version of the distribution: empty where its
    metadata is missing, as in a frozen application. Submodules are attributes too, imported at first use.

    Args:
        package: Name of the package.
        distribution: Name of the distribution that it belongs to.
    """
    names = _LazyNames(package, distribution)
    return names.get, names.list


class _LazyNames:
    def __init__(self, package: str, distribution: str) -> None:
        self._package, self._distribution = package, distribution

    def get(self, name: str) -> Any:
        """Return an attribute of the package that it does not have yet, and remember it there."""
        if name == "__version__":
            return self._version()
        if name.startswith("_") and name != "__all__":
            raise self._missing(name)
        # Submodules come first: the modules behind `api` import them from the package while `api` is being imported.
        if find_spec(f"{self._package}.{name}") is not None:
            return importlib.import_module(f"{self._package}.{name}")
        api = self._api()
        if name != "__all__" and name not in api.__all__:
            raise self._missing(name)
        vars(sys.modules[self._package]).update({each: getattr(api, each) for each in ("__all__", *api.__all__)})
        return getattr(api, name)

    def list(self) -> list[str]:
        """List the attributes that the package has or will have."""
        return sorted({*vars(sys.modules[self._package]), *self._api().__all__, "__version__"})

    def _api(self) -> Any:
        return importlib.import_module(f"{self._package}.api")

    def _version(self) -> str:
        try:
            return version(self._distribution)
        except PackageNotFoundError:
            return ""

    def _missing(self, name: str) -> AttributeError:
        message = f"module {self._package!r} has no attribute {name!r}"
        return AttributeError(message, name=name, obj=sys.modules[self._package])
