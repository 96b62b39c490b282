"""What turns data into code, or lets it grow or wander, is called nowhere: held against every call of every file."""

from __future__ import annotations

import ast

import pytest

from .test_architecture import ROOT

FILES = [
    *(ROOT / "backend").rglob("*.py"),
    *(ROOT / "blender_addon").rglob("*.py"),
    ROOT / "install_deps.py",
]
MODULES = {"pickle", "cPickle", "_pickle", "shelve", "marshal", "dill", "cloudpickle", "joblib", "yaml", "xmlrpc"}
BUILTINS = {"eval", "exec", "compile", "__import__"}
#: (file, what is called) -> why it may be.
EXCEPTIONS = {
    ("backend/nets/checkpoint.py", "pickle"): "names the error that torch.load with weights_only raises; loads nothing",
    ("backend/nets/retrieval.py", "pickle"): "a published codebook is one: its Unpickler knows arrays alone",
}


def faults(tree: ast.AST) -> list[tuple[int, str]]:
    """(line, what is called) of each call and import that is forbidden."""
    found: list[tuple[int, str]] = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found += [(node.lineno, a.name) for a in node.names if a.name.partition(".")[0] in MODULES]
        elif isinstance(node, ast.ImportFrom) and not node.level and (node.module or "").partition(".")[0] in MODULES:
            found.append((node.lineno, node.module or ""))
        elif isinstance(node, ast.Call):
            fault = _fault(node)
            if fault:
                found.append((node.lineno, fault))
    return found


def _fault(call: ast.Call) -> str:
    name = ast.unparse(call.func)
    last = name.rpartition(".")[2]
    options = {k.arg: k.value for k in call.keywords}
    if name in BUILTINS or name in ("os.system", "os.popen", "builtins.eval", "builtins.exec"):
        return name
    if name in ("np.load", "numpy.load") and not _is(options.get("allow_pickle"), False, absent=True):
        return f"{name} with pickle"
    if name == "torch.load" and not _is(options.get("weights_only"), True):
        return "torch.load of more than weights"
    if not _is(options.get("shell"), False, absent=True):
        return f"{name} with a shell"
    if last in ("extractall", "extract") and "tar" in name and "filter" not in options:
        return f"{name} without a filter"
    if last == "unpack_archive":
        return name
    return ""


def _is(value: ast.expr | None, wanted: bool, *, absent: bool = False) -> bool:
    return absent if value is None else isinstance(value, ast.Constant) and value.value is wanted


@pytest.mark.parametrize(
    "code",
    [
        "import pickle",
        "import pickle as p",
        "from pickle import loads",
        "from yaml import load",
        "import yaml",
        "eval('1')",
        "exec(code)",
        "np.load(path, allow_pickle=True)",
        "np.load(path, allow_pickle=anything)",
        "torch.load(path)",
        "torch.load(path, weights_only=False)",
        "torch.load(path, weights_only=flag)",
        "subprocess.run(command, shell=True)",
        "os.system('ls')",
        "tar.extractall(folder)",
        "tarfile.open(path).extract(member)",
        "shutil.unpack_archive(path)",
    ],
)
def test_the_search_finds_what_it_is_for(code):
    assert len(faults(ast.parse(code))) == 1


@pytest.mark.parametrize(
    "code",
    [
        "model.eval()",
        "re.compile('x')",
        "np.load(path, mmap_mode='r')",
        "np.load(path, allow_pickle=False)",
        "torch.load(path, weights_only=True)",
        "tar.extractall(folder, members, filter='data')",
        "from .pickle import x",
        "subprocess.run(command)",
    ],
)
def test_the_search_leaves_the_rest(code):
    assert faults(ast.parse(code)) == []


def test_nothing_forbidden_is_called_anywhere():
    found = {}
    for path in FILES:
        place = path.relative_to(ROOT).as_posix()
        for line, what in faults(ast.parse(path.read_text(encoding="utf-8"))):
            found[place, what] = line
    assert len(FILES) > 150
    assert found.keys() == EXCEPTIONS.keys(), {k: v for k, v in found.items() if k not in EXCEPTIONS}


def test_the_pickle_that_is_imported_only_names_an_error():
    tree = ast.parse((ROOT / "backend/nets/checkpoint.py").read_text(encoding="utf-8"))
    used = {ast.unparse(n) for n in ast.walk(tree) if isinstance(n, ast.Attribute) and ast.unparse(n.value) == "pickle"}
    assert used == {"pickle.UnpicklingError"}
