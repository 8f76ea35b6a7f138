"""The rules of the house: floors, no cycles, lengths, names. Each rule is a few lines over the syntax tree of every file."""

import ast
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from statistics import median

import pytest

ROOT = Path(__file__).parent.parent
FLOORS = {"tsdb.kernel": 0, "tsdb.model": 1, "tsdb": 2, "promql": 2, "remote": 3, "treering": 4}
MAX_FILE_LINES = 600
MAX_FUNCTION_LINES = 60
BANNED_NAMES = {"utils", "util", "common", "helpers", "helper", "manager", "base", "types", "misc"}
LAZY_PACKAGES = {
    *("boto3", "botocore", "duckdb", "matplotlib", "obstore", "pandas", "polars", "pyarrow", "pymemcache", "uvicorn", "uvloop"),
}
"""Heavy packages that a function may import where it needs them; everything else is imported at the top."""


@cache
def modules() -> dict[str, Path]:
    paths = [p for package in ("tsdb", "promql", "remote", "treering") for p in (ROOT / package).rglob("*.py")]
    return {name_of(p): p for p in paths if not p.stem.endswith("_pb2")}


def name_of(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


@cache
def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text())


def floor(module: str) -> int:
    return FLOORS[max((f for f in FLOORS if module == f or module.startswith(f + ".")), key=len)]


def package(module: str) -> str:
    return module.split(".")[0]


def imports(path: Path) -> Iterator[tuple[str, ast.stmt]]:
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Import):
            yield from ((alias.name, node) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            module = node.module or ""
            yield from ((f"{module}.{a.name}" if f"{module}.{a.name}" in modules() else module, node) for a in node.names)


def functions(path: Path) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    return (n for n in ast.walk(tree(path)) if isinstance(n, ast.FunctionDef | ast.AsyncFunctionDef))


def code_lines(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """Lines of the function without its docstring."""
    total = (function.end_lineno or function.lineno) - function.lineno + 1
    first = function.body[0]
    if isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant) and isinstance(first.value.value, str):
        total -= (first.end_lineno or first.lineno) - first.lineno + 1
    return total


@pytest.mark.parametrize("module", modules())
def test_imports_only_from_floors_below(module: str) -> None:
    for imported, node in imports(modules()[module]):
        if package(imported) not in ("tsdb", "promql", "remote", "treering"):
            continue
        here, there = floor(module), floor(imported)
        own = package(module) == package(imported) and here == there
        assert there < here or own, f"{module}:{node.lineno} imports {imported}, which is not below it"


def test_no_import_cycles() -> None:
    graph = {m: {i for i, _ in imports(p) if i in modules() and i != m} for m, p in modules().items()}
    done: set[str] = set()

    def visit(module: str, path: tuple[str, ...]) -> None:
        assert module not in path, "cycle: " + " -> ".join((*path[path.index(module) :], module))
        if module not in done:
            for imported in graph[module]:
                visit(imported, (*path, module))
            done.add(module)

    for module in graph:
        visit(module, ())


@pytest.mark.parametrize("module", modules())
def test_imports_stand_at_the_top(module: str) -> None:
    body = tree(modules()[module]).body
    for imported, node in imports(modules()[module]):
        lazy = package(imported) in LAZY_PACKAGES or package(module) == "treering"
        assert node in body or lazy, f"{module}:{node.lineno} imports {imported} inside a function"


@pytest.mark.parametrize("module", modules())
def test_lengths(module: str) -> None:
    lines = len(modules()[module].read_text().splitlines())
    assert lines <= MAX_FILE_LINES, f"{module} has {lines} lines, over {MAX_FILE_LINES}"
    for function in functions(modules()[module]):
        size = code_lines(function)
        assert size <= MAX_FUNCTION_LINES, f"{module}.{function.name} has {size} lines, over {MAX_FUNCTION_LINES}"


def test_medians() -> None:
    assert median(len(p.read_text().splitlines()) for p in modules().values()) <= 250
    assert median(code_lines(f) for p in modules().values() for f in functions(p)) <= 10


@pytest.mark.parametrize("module", modules())
def test_names_and_docstrings(module: str) -> None:
    assert not BANNED_NAMES & set(module.split(".")), f"{module} has a name that says nothing"
    assert ast.get_docstring(tree(modules()[module])), f"{module} does not say what it is"


@pytest.mark.parametrize("module", modules())
def test_no_swallowed_exceptions(module: str) -> None:
    for node in ast.walk(tree(modules()[module])):
        if isinstance(node, ast.ExceptHandler):
            broad = node.type is None or (isinstance(node.type, ast.Name) and node.type.id in ("Exception", "BaseException"))
            silent = len(node.body) == 1 and isinstance(node.body[0], ast.Pass)
            assert not (broad and silent), f"{module}:{node.lineno} swallows every exception"


def test_storage_never_hears_of_tenants() -> None:
    for module, path in modules().items():
        if package(module) == "tsdb":
            assert "tenant" not in path.read_text().lower(), f"{module} speaks of tenants"
