"""Representatives: every cell has one, gaps are filled widest first, and nothing is kept twice."""

import numpy as np
import pytest

from alj.selection.representatives import GAP, NODE, representatives


def blobs(seed=0, each=(300, 60, 5), spread=0.3):
    rng = np.random.default_rng(seed)
    centers = np.array([[0.0, 0.0], [6.0, 0.0], [0.0, 9.0]])
    parts = [rng.normal(c, spread, (n, 2)) for c, n in zip(centers, each, strict=True)]
    patterns = np.concatenate(parts)
    cells = np.repeat(np.arange(3), each)
    to_node = np.linalg.norm(patterns - centers[cells], axis=1)
    order = rng.permutation(len(cells))
    return patterns[order], cells[order], to_node[order]


def by_hand(patterns, cells, kept):
    """Distances from what is kept of the own cell."""
    own = cells[:, None] == cells[kept][None]
    apart = np.linalg.norm(patterns[:, None] - patterns[kept][None], axis=-1)
    return np.where(own, apart, np.inf).min(axis=1)


def test_every_cell_keeps_what_is_nearest_to_its_node_and_then_gaps_are_filled():
    patterns, cells, to_node = blobs()
    kept = representatives(patterns, cells, to_node, 40)
    assert len(set(kept.places.tolist())) == 40
    assert kept.reasons.tolist() == [NODE] * 3 + [GAP] * 37
    for cell in range(3):
        inside = np.flatnonzero(cells == cell)
        assert inside[np.argmin(to_node[inside])] in kept.places[:3]
    np.testing.assert_allclose(kept.distances, by_hand(patterns, cells, kept.places), atol=1e-12)
    assert np.all(np.diff(kept.gaps[3:]) <= 0)
    # what was kept as k-th lay as far away as its gap says, and nothing lay farther
    for k in (5, 20, 39):
        before = by_hand(patterns, cells, kept.places[:k])
        assert before.max() == pytest.approx(kept.gaps[k])
        assert before[kept.places[k]] == pytest.approx(kept.gaps[k])


def test_a_part_of_the_first_ones_is_the_smaller_answer():
    given = blobs(1)
    many = representatives(*given, 60)
    few = representatives(*given, 25)
    assert few.places.tolist() == many.places[:25].tolist()


def test_it_ends_where_all_lie_near_enough_and_copies_are_never_kept():
    patterns, cells, to_node = blobs(2)
    near = representatives(patterns, cells, to_node, len(cells), within=0.3)
    assert near.distances.max() <= 0.3
    assert near.gaps[-1] > 0.3
    twice = [np.concatenate([array, array]) for array in (patterns, cells, to_node)]
    every = representatives(*twice, 10_000)
    assert len(every.places) == len(cells)
    assert every.distances.max() == 0.0


def test_what_is_known_counts_and_what_is_excluded_does_not():
    patterns, cells, to_node = blobs(3)
    first = representatives(patterns, cells, to_node, 30)
    rest = representatives(patterns, cells, to_node, 20, known=first.places)
    whole = representatives(patterns, cells, to_node, 50)
    assert rest.places.tolist() == whole.places[30:].tolist()
    assert (rest.reasons == GAP).all()
    hidden = np.where(cells == 1, -1, cells)
    kept = representatives(patterns, hidden, to_node, 500)
    assert not np.isin(kept.places, np.flatnonzero(cells == 1)).any()


def test_with_room_for_a_few_the_largest_cells_come_first():
    patterns, cells, to_node = blobs(4)
    kept = representatives(patterns, cells, to_node, 2)
    assert cells[kept.places].tolist() == [0, 1]
    assert len(representatives(patterns, cells, to_node, 0).places) == 0
