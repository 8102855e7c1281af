"""Imports between packages point one way."""

import ast
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
"""From top to bottom: a package may import packages of lower layers only."""


def imported(file: Path) -> set[str]:
    """The packages of `iava` that a file imports, other than for type checking in `iava/__init__.py`."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(file.read_text())):
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        if isinstance(node, ast.ImportFrom) and node.module:
            names = [node.module] if node.module != "iava" else [f"iava.{alias.name}" for alias in node.names]
        found |= {name.split(".")[1] for name in names if name.startswith("iava.")}
    return found


def test_a_package_imports_lower_layers_only() -> None:
    level = {name: number for number, names in enumerate(LAYERS) for name in names}
    wrong = []
    for file in sorted(SOURCE.rglob("*.py")):
        package = file.relative_to(SOURCE).parts[0].removesuffix(".py")
        if package == "__init__":
            continue
        for other in imported(file) - {package}:
            if level[other] <= level[package]:
                wrong.append(f"{file.relative_to(SOURCE)} imports iava.{other}")
    assert not wrong, "\n".join(wrong)
