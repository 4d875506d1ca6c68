"""Nothing that is loaded runs code: the source says so, since no list of attacks is complete."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import bac
from bac.plan import codegen

ROOT = Path(bac.__file__).parent
SOURCES = [*sorted(ROOT.rglob("*.py")), ROOT.parent / "lerobot_policy_bac.py"]
# Modules whose readers build any object, and built-in functions that run a text.
UNPICKLERS = {"pickle", "cPickle", "_pickle", "marshal", "shelve", "dill", "cloudpickle", "joblib", "yaml"}
RUNNERS = {"eval", "exec", "compile", "__import__"}

GENERATES_CODE = {
    # The text is made in this process of names of ATen operators and of `repr`s of numbers and texts that a recorded
    # run gave; nothing of a file enters it.
    "bac/plan/codegen.py": ["compile", "exec"],
}


def findings(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name.partition(".")[0] in UNPICKLERS)
        elif isinstance(node, ast.ImportFrom) and (node.module or "").partition(".")[0] in UNPICKLERS:
            yield str(node.module)
        elif isinstance(node, ast.Call):
            yield from _in_call(node)


def _in_call(call: ast.Call) -> Iterator[str]:
    name = ast.unparse(call.func)
    options = {option.arg: ast.unparse(option.value) for option in call.keywords}
    texts = [argument.value for argument in call.args if isinstance(argument, ast.Constant)]
    if name in RUNNERS:
        yield name
    if name == "torch.load" and options.get("weights_only") != "True":
        yield "torch.load without weights_only=True"
    if options.get("allow_pickle", "False") != "False":
        yield f"{name} with allow_pickle"
    if name == "importlib.import_module" and set(texts) & UNPICKLERS:
        yield f"{name} of {texts[0]}"


def test_nothing_in_bac_unpickles_and_one_place_generates_code():
    found = {str(path.relative_to(ROOT.parent)): sorted(findings(ast.parse(path.read_text()))) for path in SOURCES}
    assert len(found) > 100
    assert {path: what for path, what in found.items() if what} == GENERATES_CODE


@pytest.mark.parametrize(
    "line",
    ["import pickle", "from dill import loads", "eval(text)", "exec(text)", "torch.load(path)", "__import__(name)",
     "torch.load(path, weights_only=False)", "np.load(path, allow_pickle=True)", "importlib.import_module('pickle')"],
)  # fmt: skip
def test_the_scan_finds_what_it_looks_for(line):
    assert len(list(findings(ast.parse(line)))) == 1


@pytest.mark.parametrize("line", ["policy.eval()", "torch.load(path, weights_only=True)", "re.compile(text)"])
def test_the_scan_lets_the_rest_through(line):
    assert not list(findings(ast.parse(line)))


def test_a_text_in_a_program_is_quoted_and_not_run():
    writer = codegen._Writer.__new__(codegen._Writer)
    text = "')\nimport os #"
    assert ast.literal_eval(writer._text(text)) == text
