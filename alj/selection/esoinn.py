"""ESOINN: a network of nodes that grows with the patterns it is shown, and finds their classes.

A node stands for patterns near its weight W; nodes that won the same pattern are connected; a class
is what hangs together. Densities h tell classes that touch, and noise, from the rest. S. Furao, T.
Ogura, O. Hasegawa, Neural Networks 20, 893 (2007), doi:10.1016/j.neunet.2007.07.008; for molecules
M. Xu, T. Zhu, J. Z. H. Zhang (ESOINN-DP). Where the two differ, the former holds:

    R0  two distinct random patterns are nodes; then, for every pattern x of t = 1, 2, …
    R1  winners a, b: nearest and second nearest node; of equals the lower index
    R2  T_i: the largest distance to a neighbor; without any, the smallest to another node
    R3  ‖x-W_a‖ > T_a or ‖x-W_b‖ > T_b: x becomes a new node, and R4 to R8 are left out
    R4  all connections of a age by 1
    R5  a and b are connected (age 0) if one is new, or their classes are the same, or are joined:
        min(h_a, h_b) > α_C max_C for one of both classes C; else they are cut apart
        α_C = 0 where max_C ≤ 2 mean_C, 0.5 where max_C ≤ 3 mean_C, else 1
    R6  S_a += 1/(1+d/ℓ)², d the mean distance of its neighbors; h_a = S_a / (periods with a win)
    R7  M_a += 1
    R8  W_a += (x-W_a)/M_a, of each neighbor W_j += (x-W_j)/(100 M_a)
    R9  connections of a older than the oldest allowed are cut
    R10 every λ patterns: new labels by steepest ascent of h, every connection between two labels
        judged by R5, and nodes of few neighbors and low density removed, all at once
    R11 the classes are the connected components.

What the rules leave open: connected nodes of equal density ascend to the lower index; merged
classes keep the lower label; connections are judged in the order of nodes; two nodes always stay.
The number of classes depends on the order of patterns.
"""

from typing import NamedTuple

import jax
import numpy as np
from jaxtyping import Bool, Float, Int
from scipy.sparse import csr_array
from scipy.sparse.csgraph import connected_components

from alj.arrays import pad_axis
from alj.selection import esoinn_rules
from alj.selection.esoinn_rules import NEW, Nodes, Rules
from alj.types import BadInput, Context, Key, Stepper

LARGEST = 1e15
"""No scaled pattern may have a larger entry: squares must fit float32."""

SIGNALS_PER_CLASS = 5
"""Fewer signals in a period than this for each class, and small classes are lost as noise."""


class ClassNetwork(NamedTuple):
    """Nodes and their connections, in tables with room for more; the first `count` rows count.

    Patterns are divided by `scale`. `labels` are those of the last period, -1 for new nodes; `wins`
    M, `points` S and `periods` N as in the rules; `won` in this period; `born` at which signal;
    `neighbors` the first `degrees` of each row, in the order of connection, with their `ages`;
    `signals` is t. Free entries are those of a new node; of neighbors they are -1.
    """

    weights: Float[np.ndarray, "nodes features"]
    labels: Int[np.ndarray, " nodes"]
    wins: Int[np.ndarray, " nodes"]
    points: Float[np.ndarray, " nodes"]
    periods: Int[np.ndarray, " nodes"]
    won: Bool[np.ndarray, " nodes"]
    born: Int[np.ndarray, " nodes"]
    degrees: Int[np.ndarray, " nodes"]
    neighbors: Int[np.ndarray, "nodes width"]
    ages: Int[np.ndarray, "nodes width"]
    count: Int[np.ndarray, ""]
    signals: Int[np.ndarray, ""]
    scale: Float[np.ndarray, ""]


def esoinn(
    *,
    period: int = 500,
    oldest_connection: int = 100,
    noise_two_neighbors: float = 0.001,
    noise_one_neighbor: float = 1.0,
    length: float = 1.0,
) -> Stepper:
    """A step shows the patterns of `context.data`, all once, in an order drawn from its key.

    `init` starts from such patterns too; the context is not looked at. Info is the number of nodes
    and of classes.

    Args:
        period: Patterns after which classes are settled and noise is removed; at least five for
            each class, or small ones are lost.
        oldest_connection: Wins without a renewal after which a connection is cut.
        noise_two_neighbors: A node of two neighbors is noise below this multiple of the mean
            density,
        noise_one_neighbor: one of a single neighbor below this.
        length: Mean distance of the neighbors, in scaled units, at which a win counts a quarter.

    Raises:
        BadInput: a setting is out of range.
    """
    if min(period, oldest_connection) < 1 or not length > 0:
        raise BadInput(
            "period, oldest_connection and length: expected positive numbers, found "
            f"{period}, {oldest_connection} and {length}"
        )
    if min(noise_two_neighbors, noise_one_neighbor) < 0:
        raise BadInput(
            "noise_two_neighbors and noise_one_neighbor: expected at least 0, found "
            f"{noise_two_neighbors} and {noise_one_neighbor}"
        )
    rules = Rules(period, oldest_connection, noise_two_neighbors, noise_one_neighbor, length)

    def init(key: Key, patterns: Float[np.ndarray, "n features"], context: Context) -> ClassNetwork:
        return begin(key, patterns)

    def step(key: Key, network: ClassNetwork, context: Context) -> tuple[ClassNetwork, dict]:
        order = _generator(key).permutation(len(context.data))
        network = learn(network, np.asarray(context.data)[order], rules)
        found = int(np.max(classes(network))) + 1
        return network, {"nodes": int(network.count), "classes": found}

    return Stepper(init, step, host=True)


def begin(
    key: Key, patterns: Float[np.ndarray, "n features"], *, scale: float | None = None
) -> ClassNetwork:
    """R0. `scale` is the root mean square distance from the mean pattern, unless it is given.

    Raises:
        BadInput: no two patterns differ, one is not finite, or the scale is not positive.
    """
    patterns = np.asarray(patterns, np.float64)
    generator = _generator(key)
    first = int(generator.integers(len(patterns))) if len(patterns) else 0
    others = np.flatnonzero(np.any(patterns != patterns[first : first + 1], axis=1))
    if len(others) == 0:
        raise BadInput(
            f"ESOINN: expected at least two patterns that differ, found {min(len(patterns), 1)}"
        )
    if scale is None:
        scale = float(np.sqrt(np.mean(np.sum((patterns - patterns.mean(axis=0)) ** 2, axis=1))))
    if not scale > 0 or not np.isfinite(scale):
        raise BadInput(f"ESOINN: expected finite patterns and a positive scale, found {scale}")
    two = patterns[[first, int(generator.choice(others))]]
    nodes = Nodes(
        weights=scaled(two, scale),
        labels=[NEW, NEW],
        wins=[0, 0],
        points=[0.0, 0.0],
        periods=[0, 0],
        won=[False, False],
        born=[0, 0],
        edges=[{}, {}],
        signals=0,
    )
    return packed(nodes, scale)


def learn(
    network: ClassNetwork,
    patterns: Float[np.ndarray, "n features"],
    rules: Rules = Rules(),  # noqa: B008
    *,
    compiled: bool = True,
) -> ClassNetwork:
    """The network after these patterns, shown in order (R1 to R10); tables grow as they must.

    With `compiled=False` by the rules in NumPy: slowly, and with the same result to the last bit.

    Raises:
        BadInput: patterns are of another length, or not finite.
    """
    patterns = fitting(network, patterns)
    if compiled:
        return _by_kernel(network, patterns, _plain(rules))
    nodes = unpacked(network)
    for pattern in patterns:
        esoinn_rules.present(nodes, pattern, rules)
    return packed(nodes, float(network.scale))


def classes(network: ClassNetwork) -> Int[np.ndarray, " count"]:
    """R11: the class of every node; classes are numbered in the order of their first nodes."""
    count, width = int(network.count), network.neighbors.shape[1]
    there = network.neighbors[:count] >= 0
    first = np.repeat(np.arange(count), width)[there.ravel()]
    second = network.neighbors[:count][there]
    graph = csr_array((np.ones(len(first)), (first, second)), shape=(count, count))
    _, labels = connected_components(graph, directed=False)
    _, places, numbers = np.unique(labels, return_index=True, return_inverse=True)
    return np.argsort(np.argsort(places))[numbers]


def densities(network: ClassNetwork) -> Float[np.ndarray, " count"]:
    """h of every node; 0 before its first win."""
    count = int(network.count)
    return network.points[:count] / np.maximum(network.periods[:count], 1)


def period_is_short(network: ClassNetwork, rules: Rules) -> bool:
    """Whether classes may have been lost as noise, because a period has too few patterns of each.

    Of 400 planted groups 247, 358 and 399 were kept at λ = 100, 500 and 2000.
    """
    return rules.period < SIGNALS_PER_CLASS * (int(np.max(classes(network))) + 1)


def trimmed(network: ClassNetwork) -> ClassNetwork:
    """The same network in the smallest tables, so that equal networks are equal arrays."""
    count = int(network.count)
    width = max(int(np.max(network.degrees[:count])), 1)
    cut = {name: getattr(network, name)[:count] for name in _BY_NODE}
    cut |= {name: cut[name][:, :width] for name in ("neighbors", "ages")}
    return network._replace(**cut)


def scaled(patterns: np.ndarray, scale: float) -> Float[np.ndarray, "n features"]:
    """Patterns in the units of a network's weights. Raises BadInput where one is not finite."""
    patterns = np.ascontiguousarray(np.asarray(patterns, np.float64) / scale)
    if patterns.size and not np.max(np.abs(patterns)) <= LARGEST:
        wrong = np.flatnonzero(~np.all(np.abs(patterns) <= LARGEST, axis=1))[0]
        raise BadInput(
            f"ESOINN: expected finite patterns below {LARGEST:g} scales, found another in row "
            f"{wrong}; leave it out"
        )
    return patterns


def fitting(network: ClassNetwork, patterns) -> Float[np.ndarray, "n features"]:
    """Scaled patterns of the network's length. Raises BadInput where they are not."""
    patterns, features = np.asarray(patterns), network.weights.shape[1]
    if patterns.ndim != 2 or patterns.shape[1] != features:
        raise BadInput(
            f"ESOINN: expected patterns of {features} numbers, found an array of {patterns.shape}; "
            "the length is fixed by the first set"
        )
    return scaled(patterns, float(network.scale))


def roomy(network: ClassNetwork, nodes: int, width: int) -> ClassNetwork:
    """A copy whose tables are so many times as large, or as large as tables begin."""
    rows = max(nodes * len(network.weights), _NODES)
    columns = max(width * network.neighbors.shape[1], _WIDTH)
    tables = {}
    for name in _BY_NODE:
        table = pad_axis(getattr(network, name), rows, _FREE.get(name, 0))
        if name in ("neighbors", "ages"):
            table = pad_axis(table, columns, _FREE.get(name, 0), axis=1)
        tables[name] = np.ascontiguousarray(table)
    singles = {name: np.array(getattr(network, name)) for name in ("count", "signals", "scale")}
    return ClassNetwork(**tables, **singles)


def packed(nodes: Nodes, scale: float) -> ClassNetwork:
    """A network from what the rules in NumPy work on."""
    count, degrees = len(nodes.labels), [len(edges) for edges in nodes.edges]
    neighbors = np.full((count, max(*degrees, 1)), -1, np.int32)
    ages = np.zeros(neighbors.shape, np.int32)
    for i, edges in enumerate(nodes.edges):
        neighbors[i, : len(edges)] = list(edges)
        ages[i, : len(edges)] = list(edges.values())
    network = ClassNetwork(
        weights=nodes.weights,
        labels=np.array(nodes.labels, np.int64),
        wins=np.array(nodes.wins, np.int64),
        points=np.array(nodes.points, np.float64),
        periods=np.array(nodes.periods, np.int64),
        won=np.array(nodes.won, bool),
        born=np.array(nodes.born, np.int64),
        degrees=np.array(degrees, np.int64),
        neighbors=neighbors,
        ages=ages,
        count=np.array(count),
        signals=np.array(nodes.signals),
        scale=np.array(scale),
    )
    return roomy(network, 1, 1)


def unpacked(network: ClassNetwork) -> Nodes:
    """What the rules in NumPy work on."""
    network = trimmed(network)
    rows = zip(network.neighbors.tolist(), network.ages.tolist(), network.degrees, strict=True)
    return Nodes(
        weights=network.weights.copy(),
        labels=network.labels.tolist(),
        wins=network.wins.tolist(),
        points=network.points.tolist(),
        periods=network.periods.tolist(),
        won=network.won.tolist(),
        born=network.born.tolist(),
        edges=[dict(zip(row[:k], ages[:k], strict=True)) for row, ages, k in rows],
        signals=int(network.signals),
    )


_BY_NODE = tuple(name for name in ClassNetwork._fields if name not in ("count", "signals", "scale"))
_FREE = {"labels": NEW, "neighbors": -1}
"""What free entries hold, where it is not 0."""

_NODES, _WIDTH = 64, 8
"""Room that tables begin with; each time it is short, it doubles."""


def _generator(key: Key) -> np.random.Generator:
    return np.random.default_rng(np.asarray(jax.random.key_data(key), np.uint32))


def _plain(rules: Rules) -> Rules:
    """Numbers of the types that the kernel was compiled for."""
    period, oldest, two, one, length = rules
    return Rules(int(period), int(oldest), float(two), float(one), float(length))


def _by_kernel(network: ClassNetwork, patterns: np.ndarray, rules: Rules) -> ClassNetwork:
    from alj.selection import esoinn_kernel, esoinn_search  # import numba

    network, done = roomy(network, 1, 1), 0
    while True:
        search = esoinn_search.search_in(network.weights, int(network.count))
        done, lacks = esoinn_kernel.present(network, patterns, done, rules, search)
        if lacks == esoinn_kernel.DONE:
            return network
        more_nodes = lacks == esoinn_kernel.MORE_NODES
        network = roomy(network, 2 if more_nodes else 1, 1 if more_nodes else 2)
