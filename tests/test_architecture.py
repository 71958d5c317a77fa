"""The tree tells the truth: imports go one way, and no name of the face hides a module."""

import importlib
import pkgutil
import types

import pytest
from importlinter.cli import lint_imports

import damjax

PACKAGES = sorted({name.rpartition(".")[0] for _, name, _ in pkgutil.walk_packages(damjax.__path__, "damjax.")})


def test_imports_go_one_way(monkeypatch, request):
    monkeypatch.chdir(request.config.rootpath)
    assert lint_imports() == 0


@pytest.mark.parametrize("package", PACKAGES)
def test_what_is_called_like_a_module_is_that_module(package):
    """``import damjax.x as x`` binds the attribute: one that is a function would be a lie."""
    home = importlib.import_module(package)
    for module in pkgutil.iter_modules(home.__path__):
        found = vars(home).get(module.name)
        assert found is None or isinstance(found, types.ModuleType)


@pytest.mark.parametrize("name", [name for _, name, _ in pkgutil.walk_packages(damjax.__path__, "damjax.")])
def test_public_modules_say_what_is_public(name):
    """``help`` lists what stands in ``__all__``, and all of it is there."""
    module = importlib.import_module(name)
    if not any(part.startswith("_") for part in name.split(".")):
        assert all(hasattr(module, public) for public in module.__all__)


def test_the_face_shows_what_it_says():
    """``from damjax import *`` gives what ``help(damjax)`` lists, and every public room."""
    assert all(hasattr(damjax, name) for name in damjax.__all__)
    rooms = {module.name for module in pkgutil.iter_modules(damjax.__path__) if not module.name.startswith("_")}
    behind = {
        "evaluation",
        "plotting",
        "simulation",
        "sweeps",
        "types",
        "vmapping",
    }  # the face has what they hold, or loads them late
    assert rooms - behind <= set(damjax.__all__)
