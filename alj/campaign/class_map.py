"""The network of classes of a campaign as a layer of the map: nodes, connections, classes of data.

Drawn in the principal plane of what the network sees, the scaled Coulomb spectra, so that nodes and
structures lie in one space.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

from alj.campaign.classes import Map, spectra
from alj.campaign.datasets import Dataset
from alj.selection import esoinn

NAME = "spectra"


class Layer(NamedTuple):
    """Places of structures and nodes in one plane, classes of both, connections of the nodes."""

    places: Float[np.ndarray, "structures 2"]
    classes: Int[np.ndarray, " structures"]
    nodes: Float[np.ndarray, "nodes 2"]
    node_class: Int[np.ndarray, " nodes"]
    edges: Int[np.ndarray, "edges 2"]
    axes: dict[str, str]


def layer(found: Map, data: Dataset) -> Layer | None:
    """What is drawn of a network of classes; None before it has nodes.

    A structure belongs to the class of its nearest node. Raises BadInput for a structure of more
    atoms than the network knows.
    """
    network, count = found.network, int(found.network.count)
    if count < 1:
        return None
    patterns = np.asarray(esoinn.fitting(network, spectra(data, found.atoms)), float)
    weights = np.asarray(network.weights[:count], float)
    labels = np.asarray(esoinn.classes(network), int)
    center = patterns.mean(axis=0)
    values, axes = np.linalg.eigh(np.cov((patterns - center).T, ddof=0).reshape(len(center), -1))
    order = np.argsort(-values)[:2]
    plane = axes[:, order]
    plane = plane * np.sign(plane[np.abs(plane).argmax(axis=0), np.arange(plane.shape[1])])
    if plane.shape[1] == 1:
        plane = np.hstack([plane, np.zeros_like(plane)])
    shares = np.append(values[order] / max(values.sum(), 1e-300), 0.0)
    squares = np.sum(patterns**2, axis=1)[:, None] - 2 * patterns @ weights.T
    nearest = np.argmin(squares + np.sum(weights**2, axis=1), axis=1)
    edges = [
        (node, int(other))
        for node in range(count)
        for other in network.neighbors[node][: int(network.degrees[node])]
        if node < other < count
    ]
    words = [
        f"spectrum component {i + 1} ({100 * shares[i]:.0f} % of the variance)" for i in (0, 1)
    ]
    return Layer(
        places=(patterns - center) @ plane,
        classes=labels[nearest],
        nodes=(weights - center) @ plane,
        node_class=labels,
        edges=np.array(edges, int).reshape(-1, 2),
        axes={"title": "Coulomb spectra, nodes of the classes", "x": words[0], "y": words[1]},
    )
