"""Imports point one way: between packages, between modules, and towards the packages that only some may know."""

import ast
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

SOURCE = Path(__file__).parents[1] / "src" / "iava"
LAYERS = [
    {"__main__"},
    {"cli"},
    {"serve", "integrations"},
    {"explain", "studies", "cost"},
    {"reporting"},
    {"evaluation"},
    {"benchmarks"},
    {"metrics"},
    {"lvlm"},
    {"methods"},
    {"engine", "pocket"},
    {"files", "jsonfiles", "words"},
    {"errors", "deprecated"},
]
"""Packages from top to bottom. A package may import packages of lower layers only."""
POCKET_IMPORTERS = {"pocket", "benchmarks", "lvlm.loading"}
"""The packages and modules that may import `iava.pocket`. Everyone else goes through its benchmarks."""


def module_name(file: Path) -> str:
    """The name of a source file below `iava`, such as "engine.probe"; "" for the package itself."""
    return ".".join(file.relative_to(SOURCE).with_suffix("").parts).removesuffix("__init__").removesuffix(".")


FILES = {module_name(file): file for file in sorted(SOURCE.rglob("*.py"))}


def imported_modules(module: str) -> set[str]:
    """The modules below `iava` that a module imports anywhere, inside functions too."""
    targets: set[str] = set()
    for node in ast.walk(ast.parse(FILES[module].read_text())):
        if isinstance(node, ast.Import):
            targets |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            members = {f"{node.module}.{alias.name}" for alias in node.names}
            targets |= {name if name.removeprefix("iava.") in FILES else node.module for name in members}
    return {name.removeprefix("iava.") for name in targets if name.startswith("iava.")} - {module}


IMPORTS = {module: imported_modules(module) for module in FILES if module}


def package(module: str) -> str:
    return module.split(".")[0]


def test_a_package_imports_lower_layers_only() -> None:
    level = {name: number for number, names in enumerate(LAYERS) for name in names}
    wrong = [
        f"{module} imports {other}"
        for module, others in IMPORTS.items()
        for other in sorted(others)
        if package(other) != package(module) and level[package(other)] <= level[package(module)]
    ]
    assert not wrong, "\n".join(wrong)


def test_the_engine_imports_only_itself_and_errors() -> None:
    wrong = {
        f"{module} imports {other}"
        for module in IMPORTS
        if package(module) == "engine"
        for other in IMPORTS[module]
        if package(other) not in ("engine", "errors")
    }
    assert not wrong


def test_only_benchmarks_and_loading_import_pocket() -> None:
    importers = {module for module, others in IMPORTS.items() if any(package(other) == "pocket" for other in others)}
    assert importers
    assert {module for module in importers if not {module, package(module)} & POCKET_IMPORTERS} == set()


def test_modules_do_not_import_each_other_in_a_circle() -> None:
    try:
        TopologicalSorter(IMPORTS).prepare()
    except CycleError as error:
        raise AssertionError(" -> ".join(error.args[1])) from None


def test_no_command_imports_the_application() -> None:
    assert {module for module, others in IMPORTS.items() if "cli.app" in others} == {"__main__"}


def names_of(module: str) -> set[str]:
    """The classes, functions and constants that a module defines, private ones included."""
    found: set[str] = set()
    for node in ast.parse(FILES[module].read_text()).body:
        if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            found.add(node.name)
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            found |= {target.id for target in targets if isinstance(target, ast.Name)}
    return found - {"__all__", "__getattr__"}


def test_no_name_has_two_meanings() -> None:
    of_a_benchmark = {"tally", "rates"}
    modules: dict[str, list[str]] = {}
    for module in FILES:
        # A command has the name of the function that it runs.
        if not module.startswith("cli.commands"):
            for name in names_of(module) - of_a_benchmark:
                modules.setdefault(name, []).append(module)
    assert {name: places for name, places in modules.items() if len(places) > 1} == {}
