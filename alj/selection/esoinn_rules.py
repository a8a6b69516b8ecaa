"""The rules of ESOINN in NumPy, one function each: what the compiled kernel repeats bit by bit.

`Nodes` holds the network as lists and dictionaries, whatever the kernel makes of it. All sums run
in order (`in_order`): over features, over nodes, over connections in the order they were made.
The rules R0 to R11 are those of `alj.selection.esoinn`.
"""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

NEW = -1
"""The label of a node that no class has taken yet."""

SLOWER = 100
"""Neighbors of a winner follow a signal this many times more slowly than it."""


class Rules(NamedTuple):
    """What may be set.

    period: λ, the number of signals after which classes are settled and noise is removed.
    oldest: Age beyond which a connection of a winner is cut.
    two: c1; a node with two neighbors is noise below this multiple of the mean density,
    one: c2, and one with a single neighbor below this multiple.
    length: ℓ, the distance (in scaled units) at which a win counts a quarter.
    """

    period: int = 500
    oldest: int = 100
    two: float = 0.001
    one: float = 1.0
    length: float = 1.0


@dataclass
class Nodes:
    """A network; `edges[i]` maps each neighbor of node i to the age of the connection."""

    weights: Float[np.ndarray, "nodes features"]
    labels: list[int]
    wins: list[int]
    points: list[float]
    periods: list[int]
    won: list[bool]
    born: list[int]
    edges: list[dict[int, int]]
    signals: int


def present(nodes: Nodes, pattern: Float[np.ndarray, " features"], rules: Rules) -> None:
    """One signal: R1 to R10."""
    nodes.signals += 1
    squares = squared_distances(pattern, nodes.weights)
    a, b = np.argsort(squares, kind="stable")[:2].tolist()  # R1
    near = np.sqrt(squares[a]) <= threshold(nodes, a) and np.sqrt(squares[b]) <= threshold(nodes, b)
    if near:
        for j in nodes.edges[a]:  # R4
            nodes.edges[a][j] += 1
            nodes.edges[j][a] += 1
        connect(nodes, a, b)
        score(nodes, a, rules)
        move(nodes, a, pattern)
    else:
        insert(nodes, pattern)
    for j in [j for j, age in nodes.edges[a].items() if age > rules.oldest]:  # R9
        cut(nodes, a, j)
    if nodes.signals % rules.period == 0:
        settle(nodes, rules)


def threshold(nodes: Nodes, i: int) -> float:
    """R2: the distance of the farthest neighbor, or else of the nearest other node."""
    squares = squared_distances(nodes.weights[i], nodes.weights)
    if nodes.edges[i]:
        return float(np.sqrt(np.max(squares[list(nodes.edges[i])])))
    return float(np.sqrt(np.min(np.delete(squares, i))))


def insert(nodes: Nodes, pattern: Float[np.ndarray, " features"]) -> None:
    """R3: the pattern becomes a node."""
    nodes.weights = np.vstack([nodes.weights, pattern])
    nodes.labels.append(NEW)
    nodes.wins.append(0)
    nodes.points.append(0.0)
    nodes.periods.append(0)
    nodes.won.append(False)
    nodes.born.append(nodes.signals)
    nodes.edges.append({})


def connect(nodes: Nodes, a: int, b: int) -> None:
    """R5: connect the winners, unless they belong to classes that must stay apart."""
    first, second = nodes.labels[a], nodes.labels[b]
    if NEW not in (first, second) and first != second:
        heights, labels = densities(nodes), np.array(nodes.labels)
        summits = [summary(heights[labels == label]) for label in (first, second)]
        if not joined(min(heights[a], heights[b]), *summits):
            cut(nodes, a, b)
            return
        merged = min(first, second)
        nodes.labels = [merged if x in (first, second) else x for x in nodes.labels]
    nodes.edges[a][b] = 0
    nodes.edges[b][a] = 0


def score(nodes: Nodes, a: int, rules: Rules) -> None:
    """R6 and R7: points for the winner, more where its neighbors are near; its win is counted."""
    if nodes.edges[a]:
        squares = squared_distances(nodes.weights[a], nodes.weights)[list(nodes.edges[a])]
        reach = 1.0 + in_order(np.sqrt(squares)) / len(squares) / rules.length
        nodes.points[a] += 1.0 / (reach * reach)
    if not nodes.won[a]:
        nodes.won[a] = True
        nodes.periods[a] += 1
    nodes.wins[a] += 1


def move(nodes: Nodes, a: int, pattern: Float[np.ndarray, " features"]) -> None:
    """R8: the winner becomes the mean of what it won; its neighbors follow slowly."""
    nodes.weights[a] += (pattern - nodes.weights[a]) / nodes.wins[a]
    for j in nodes.edges[a]:
        nodes.weights[j] += (pattern - nodes.weights[j]) / (SLOWER * nodes.wins[a])


def settle(nodes: Nodes, rules: Rules) -> None:
    """R10: classes anew, connections between them judged, noise removed."""
    heights = densities(nodes)
    relabel(nodes, heights)
    judge(nodes, heights)
    kept = dense_enough(heights, [len(edges) for edges in nodes.edges], rules)
    keep(nodes, kept)
    nodes.won = [False] * len(nodes.won)


def relabel(nodes: Nodes, heights: Float[np.ndarray, " nodes"]) -> None:
    """R10 (i): every node takes the label of the summit that steepest ascent leads to.

    Of equal densities that of the lower index counts as the higher one.
    """

    def rank(i: int) -> tuple[float, int]:
        return heights[i], -i

    up = [max([i, *edges], key=rank) for i, edges in enumerate(nodes.edges)]
    summits = [i for i in range(len(up)) if up[i] == i]
    for i in range(len(up)):
        top = i
        while up[top] != top:
            top = up[top]
        nodes.labels[i] = summits.index(top)


def judge(nodes: Nodes, heights: Float[np.ndarray, " nodes"]) -> None:
    """R10 (ii): each connection between two classes merges them or is cut, in order."""
    labels = np.array(nodes.labels)
    summits = [summary(heights[labels == label]) for label in range(max(nodes.labels) + 1)]
    for i in range(len(nodes.edges)):
        for j in [j for j in nodes.edges[i] if j > i]:
            first, second = sorted((nodes.labels[i], nodes.labels[j]))
            if first == second:
                continue
            if joined(min(heights[i], heights[j]), summits[first], summits[second]):
                summits[first] = union(summits[first], summits[second])
                nodes.labels = [first if x == second else x for x in nodes.labels]
            else:
                cut(nodes, i, j)


def dense_enough(
    heights: Float[np.ndarray, " nodes"], degrees: list[int], rules: Rules
) -> Int[np.ndarray, " kept"]:
    """R10 (iii): the nodes that are no noise; never fewer than two, the densest."""
    mean = in_order(heights) / len(heights)
    least = {0: np.inf, 1: rules.one * mean, 2: rules.two * mean}
    kept = [i for i, degree in enumerate(degrees) if heights[i] >= least.get(degree, -np.inf)]
    spare = [i for i in np.argsort(-heights, kind="stable").tolist() if i not in kept]
    return np.sort(np.array(kept + spare[: max(2 - len(kept), 0)]))


def keep(nodes: Nodes, kept: Int[np.ndarray, " kept"]) -> None:
    """These nodes and the connections among them, renumbered in order."""
    number = {old: new for new, old in enumerate(kept.tolist())}
    nodes.weights = nodes.weights[kept]
    for name in ("labels", "wins", "points", "periods", "won", "born"):
        setattr(nodes, name, [getattr(nodes, name)[i] for i in number])
    nodes.edges = [
        {number[j]: age for j, age in nodes.edges[i].items() if j in number} for i in number
    ]


class Summit(NamedTuple):
    """The largest density of a class, the sum of all, and how many they are."""

    highest: float
    total: float
    members: int


def summary(heights: Float[np.ndarray, " members"]) -> Summit:
    """Of the densities of one class."""
    return Summit(float(np.max(heights)), in_order(heights), len(heights))


def union(first: Summit, second: Summit) -> Summit:
    """Of two classes that become one."""
    highest = max(first.highest, second.highest)
    return Summit(highest, first.total + second.total, first.members + second.members)


def joined(low: float, *summits: Summit) -> bool:
    """Whether two classes are one: the lower of two connected nodes rises above a valley.

    low > α max  of either class,   α = 0 where max ≤ 2 mean, 0.5 where max ≤ 3 mean, else 1
    """
    for highest, total, members in summits:
        mean = total / members
        steepness = 0.0 if highest <= 2.0 * mean else 0.5 if highest <= 3.0 * mean else 1.0
        if low > steepness * highest:
            return True
    return False


def cut(nodes: Nodes, a: int, b: int) -> None:
    """Remove the connection of two nodes, if there is one."""
    nodes.edges[a].pop(b, None)
    nodes.edges[b].pop(a, None)


def densities(nodes: Nodes) -> Float[np.ndarray, " nodes"]:
    """h = S / N; 0 before the first win."""
    pairs = zip(nodes.points, nodes.periods, strict=True)
    return np.array([points / periods if periods else 0.0 for points, periods in pairs])


def squared_distances(
    pattern: Float[np.ndarray, " features"], weights: Float[np.ndarray, "nodes features"]
) -> Float[np.ndarray, " nodes"]:
    """‖x - W_i‖² of all nodes."""
    apart = pattern - weights
    return np.cumsum(apart * apart, axis=1)[:, -1]


def in_order(values: Float[np.ndarray, " count"]) -> float:
    """The sum from first to last; `np.sum` would add in pairs."""
    return float(np.cumsum(values)[-1])
