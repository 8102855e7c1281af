"""Module paths of the previous version import with a warning, and are the new modules."""

import subprocess
import sys
import warnings
from importlib import import_module

import pytest

import iava
from iava.deprecated import MOVED
from iava.lvlm.answers import Explanation

NEEDS_EXTRAS = {"iava.lmms_eval", "iava.bench.ray_engine", "iava.bench.hub"}


@pytest.mark.parametrize("old", sorted(set(MOVED) - NEEDS_EXTRAS))
def test_old_module_paths_lead_to_the_new_modules(old):
    sys.modules.pop(old, None)
    with pytest.warns(DeprecationWarning, match=f"{old} is now {MOVED[old]}"):
        module = import_module(old)
    assert module is import_module(MOVED[old])
    assert module.__spec__.name == MOVED[old]


@pytest.mark.parametrize("old", sorted(NEEDS_EXTRAS))
def test_old_module_paths_of_extras_lead_to_existing_files(old):
    assert import_module("importlib.util").find_spec(MOVED[old]) is not None


def test_names_of_the_former_module_lvlm():
    with pytest.warns(DeprecationWarning, match="iava.lvlm.LVLM is now iava.lvlm.model.LVLM"):
        from iava.lvlm import LVLM
    assert LVLM is iava.LVLM
    with pytest.warns(DeprecationWarning, match="iava.lvlm.Reading is now"):
        from iava.lvlm import Reading
    assert callable(Reading)
    with pytest.raises(ImportError):
        from iava.lvlm import Nothing  # noqa: F401


def test_modules_import_from_the_former_package_bench():
    for name in [name for name in sys.modules if name.split(".")[:2] == ["iava", "bench"]]:
        del sys.modules[name]
    with pytest.warns(DeprecationWarning, match="iava.bench.pope is now iava.benchmarks.pope"):
        from iava.bench import pope
    assert pope is import_module("iava.benchmarks.pope")


def test_the_former_name_of_cross_attention():
    explanation = Explanation(None, None, None, None, None, None, [])
    with pytest.warns(DeprecationWarning, match=r"Explanation\.looks is now Explanation\.cross_attention"):
        assert explanation.looks is explanation.cross_attention


def test_unknown_modules_stay_unknown():
    for name in ("iava.nothing", "iava.bench.nothing"):
        with pytest.raises(ModuleNotFoundError):
            import_module(name)


@pytest.mark.slow
def test_public_names_import_without_a_warning():
    code = "import iava, warnings; warnings.simplefilter('error'); [getattr(iava, name) for name in iava.__all__]"
    subprocess.run([sys.executable, "-c", code], check=True)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert set(dir(iava)) == set(iava.__all__)
