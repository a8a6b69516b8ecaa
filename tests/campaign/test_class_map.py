"""The layer of classes: nodes among structures, connections within classes, the principal plane."""

import numpy as np
import pytest
from campaign.test_classes import clusters, learned

from alj.campaign.class_map import layer
from alj.campaign.classes import spectra
from alj.types import BadInput


@pytest.mark.slow
def test_structures_of_one_class_are_alike_and_nodes_lie_among_them():
    data = clusters()
    found = layer(learned(), data)
    assert found is not None
    assert len(found.places) == len(data.offsets) - 1
    sizes = np.diff(data.offsets)
    for kind in np.unique(found.classes):
        assert len(np.unique(sizes[found.classes == kind])) == 1
    low, high = found.places.min(axis=0), found.places.max(axis=0)
    room = 0.05 * (high - low)
    assert np.all((found.nodes > low - room) & (found.nodes < high + room))
    for one, other in found.edges:
        assert found.node_class[one] == found.node_class[other]


def test_the_plane_is_the_principal_one():
    data = clusters()
    found = layer(learned(), data)
    patterns = spectra(data, learned().atoms)
    centered = patterns - patterns.mean(0)
    values = np.linalg.svd(centered, compute_uv=False)
    spread = np.linalg.norm(found.places, axis=0)
    assert spread[0] / spread[1] == pytest.approx(values[0] / values[1], rel=1e-6)


def test_structures_that_the_network_cannot_know_are_refused():
    with pytest.raises(BadInput):
        layer(learned()._replace(atoms=1), clusters())
