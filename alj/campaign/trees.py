"""Trees of arrays as bytes and back: exact, checksummed, and without executing anything.

Layout: a magic line, the SHA-256 of the rest in hex, a JSON line that describes the tree, then the
raw little-endian bytes of its arrays one after another. Strings, numbers, None, dicts with string
keys, lists, tuples, NumPy and JAX arrays are kept exactly (JAX arrays come back as JAX arrays of
the same dtype), and so are NamedTuples of `alj.types` and those marked `@storable`. Any other tree
(an optax state) is stored as bare leaves and needs an example of its shape (`like`) to come back.
"""

import hashlib
import json
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np

from alj import types
from alj.arrays import double_precision
from alj.types import BadInput

MAGIC = b"alj tree 1\n"
_DIGEST = 64

C = TypeVar("C", bound=type)
_STORABLE: dict[str, type] = {}


def storable(cls: C) -> C:
    """Class decorator: this NamedTuple may be stored; no two such classes share a name."""
    known = _STORABLE.setdefault(cls.__name__, cls)
    if (known.__module__, known.__qualname__) != (cls.__module__, cls.__qualname__):
        raise ValueError(f"two storable classes are called {cls.__name__}")
    _STORABLE[cls.__name__] = cls
    return cls


for _cls in list(vars(types).values()):
    if isinstance(_cls, type) and issubclass(_cls, tuple) and hasattr(_cls, "_fields"):
        storable(_cls)


def encode(value: Any, *, bare: bool = False) -> bytes:
    """The bytes of a tree; `bare` keeps only its leaves, in order.

    Raises TypeError for what cannot be stored (functions, PRNG keys, unknown classes).
    """
    arrays: list[bytes] = []
    if bare:
        value = {"structure": str(jax.tree.structure(value)), "leaves": jax.tree.leaves(value)}
    header = json.dumps(_describe(value, arrays, "value"), separators=(",", ":")).encode()
    content = b"".join([header, b"\n", *arrays])
    return b"".join([MAGIC, hashlib.sha256(content).hexdigest().encode(), b"\n", content])


def decode(data: bytes, what: str, *, like: Any = None) -> Any:
    """The tree in `data`; `what` names its source in messages.

    `like` is an example of the tree where it was stored bare. Raises BadInput where the bytes are
    not what `encode` wrote, or do not fit `like`.
    """
    start = len(MAGIC) + _DIGEST + 1
    if not data.startswith(MAGIC):
        raise BadInput(
            f"{what} is damaged or not a file of alj; expected {MAGIC.decode().strip()!r}"
        )
    content = memoryview(data)[start:]
    if data[len(MAGIC) : start] != hashlib.sha256(content).hexdigest().encode() + b"\n":
        raise BadInput(f"{what} is damaged: its checksum differs")
    end = data.index(b"\n", start)
    try:
        value = _Decoder(memoryview(data)[end + 1 :]).build(json.loads(data[start:end]))
    except (KeyError, TypeError, ValueError) as error:
        raise BadInput(f"{what} was written by another version of alj ({error})") from None
    if like is None:
        return value
    structure = jax.tree.structure(like)
    if not isinstance(value, dict) or value.get("structure") != str(structure):
        raise BadInput(f"{what} does not fit: it holds a tree of another structure")
    return jax.tree.unflatten(structure, value["leaves"])


def _describe(value: Any, arrays: list[bytes], path: str):
    """JSON for a tree; the bytes of its arrays are appended to `arrays`."""

    def inner(part, name):
        return _describe(part, arrays, f"{path}.{name}")

    if isinstance(value, (np.ndarray, np.generic, jax.Array)):
        return _describe_array(value, arrays, path)
    if value is None or isinstance(value, (bool, int, float, str)):
        return {"value": value}
    if isinstance(value, dict):
        if not all(isinstance(key, str) for key in value):
            raise TypeError(f"{path}: only dicts with string keys can be stored")
        return {"dict": {key: inner(part, key) for key, part in value.items()}}
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        if _STORABLE.get(type(value).__name__) is not type(value):
            raise TypeError(
                f"{path}: {type(value).__name__} is not marked @storable; mark it, or use `like`"
            )
        fields = {name: inner(part, name) for name, part in _asdict(value).items()}
        return {"named": type(value).__name__, "fields": fields}
    if isinstance(value, (list, tuple)):
        kind = "list" if isinstance(value, list) else "tuple"
        return {kind: [inner(part, i) for i, part in enumerate(value)]}
    raise TypeError(f"{path}: a {type(value).__name__} cannot be stored")


def _asdict(value: Any) -> dict[str, Any]:
    return value._asdict()


def _describe_array(value, arrays: list[bytes], path: str):
    if isinstance(value, jax.Array) and jnp.issubdtype(value.dtype, jax.dtypes.prng_key):
        raise TypeError(f"{path}: keys are derived from the seed, never stored")
    kind = "jax" if isinstance(value, jax.Array) else "numpy"
    kind = "scalar" if isinstance(value, np.generic) else kind
    host = np.asarray(value)
    if host.dtype.kind not in "biufcV" or host.dtype.hasobject or host.dtype.fields:
        if host.dtype.kind != "U":
            raise TypeError(f"{path}: arrays of {host.dtype} cannot be stored")
        return {
            "strings": host.reshape(-1).tolist(),
            "shape": list(host.shape),
            "dtype": host.dtype.str,
        }
    host = host.astype(host.dtype.newbyteorder("<"), copy=False)
    arrays.append(np.ascontiguousarray(host).tobytes())
    return {kind: host.dtype.name, "shape": list(host.shape)}


class _Decoder:
    """Builds the tree of a header, reading its arrays in the order in which they were described."""

    def __init__(self, content: memoryview):
        self.content, self.position = content, 0

    def build(self, node: dict) -> Any:
        kind = next(iter(node))
        match kind:
            case "value":
                return node["value"]
            case "dict":
                return {key: self.build(part) for key, part in node["dict"].items()}
            case "list":
                return [self.build(part) for part in node["list"]]
            case "tuple":
                return tuple(self.build(part) for part in node["tuple"])
            case "named":
                fields = {name: self.build(part) for name, part in node["fields"].items()}
                return _STORABLE[node["named"]](**fields)
            case "strings":
                return np.array(node["strings"], node["dtype"]).reshape(node["shape"])
            case "numpy" | "scalar" | "jax":
                return self._array(kind, node)
        raise ValueError(f"unknown kind {kind!r}")

    def _array(self, kind: str, node: dict):
        dtype = jnp.dtype(node[kind])
        size = int(np.prod(node["shape"], dtype=int))
        array = (
            np.frombuffer(self.content, dtype, size, self.position).reshape(node["shape"]).copy()
        )
        self.position += array.nbytes
        if kind == "scalar":
            return array[()]
        if kind == "jax":
            with double_precision():
                return jnp.asarray(array)
        return array
