"""Fisher scores: slopes against finite differences, sketches against what they estimate, limits."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from potentials.liquids import liquid, padded, prepared, table

from alj.campaign import datasets, evidence, scores
from alj.potentials import behler_parrinello, gaussian_moments, ml_bop, schnet
from alj.potentials.combine import energy, energy_and_forces
from alj.types import BadInput, Labels
from alj.uncertainty import fisher

KINDS, CUTOFF, CAPACITY = (8, 1), 3.9, 40
energy_row, atomic_rows, force_rows, sketched_rows, both_of = (
    jax.jit(function, static_argnums=0)
    for function in (
        fisher.energy_row,
        fisher.atomic_rows,
        fisher.force_rows,
        fisher.sketched_rows,
        energy_and_forces,
    )
)
POTENTIALS = {
    "behler_parrinello": behler_parrinello(KINDS, cutoff_A=CUTOFF, hidden=(6, 5)),
    "gaussian_moments": gaussian_moments(KINDS, cutoff_A=CUTOFF, hidden=(12, 8)),
    "schnet": schnet(KINDS, cutoff_A=CUTOFF, features=10, gaussians=6, interactions=2),
}


@pytest.fixture(scope="module", params=["gaussian_moments", "schnet"])
def case(request):
    potential = POTENTIALS[request.param]
    params = prepared(potential, [liquid(seed, species=KINDS) for seed in (1, 2)], CAPACITY)
    s = liquid(3, species=KINDS)
    return potential, params, s, table(s, CUTOFF + 0.2, CAPACITY)


def test_rows_are_slopes_of_energy_and_forces(case):
    potential, params, s, neighbors = case
    row = energy_row(potential, params, s, neighbors)
    rows = force_rows(potential, params, s, neighbors)
    assert rows.shape == (36, len(row))
    by_atom = atomic_rows(potential, params, s, neighbors)
    np.testing.assert_allclose(jnp.sum(by_atom, axis=0), row, rtol=1e-9, atol=1e-12)

    # The energy is affine in the readout: a step along it is exact, however long.
    leaves, tree = jax.tree.flatten(params["readout"])
    rng = np.random.default_rng(0)
    steps = [jnp.asarray(rng.normal(size=leaf.shape)) for leaf in leaves]
    moved = {
        **params,
        "readout": tree.unflatten([a + b for a, b in zip(leaves, steps, strict=True)]),
    }
    flat = np.concatenate([step.ravel() for step in steps])
    before, after = (both_of(potential, p, s, neighbors) for p in (params, moved))
    np.testing.assert_allclose(after[0] - before[0], row @ flat, rtol=1e-8)
    np.testing.assert_allclose((after[1] - before[1]).ravel(), rows @ flat, rtol=1e-7, atol=1e-9)

    # And against a finite difference in space.
    shift, where = 1e-5, (4, 1)
    ends = [
        energy_row(
            potential, params, s._replace(positions=s.positions.at[where].add(sign * shift)),
            neighbors,
        )
        for sign in (1, -1)
    ]  # fmt: skip
    np.testing.assert_allclose(
        rows[3 * where[0] + where[1]], (ends[1] - ends[0]) / (2 * shift), rtol=2e-5, atol=1e-7
    )


def test_padding_changes_no_score(case):
    potential, params, s, _ = case
    found = []
    for one in (s, padded(s, 20)):
        neighbors = table(one, CUTOFF, CAPACITY)
        rows = force_rows(potential, params, one, neighbors)
        row = energy_row(potential, params, one, neighbors)
        lower = jnp.asarray(fisher.fisher(np.eye(len(row))).lower)
        found.append([fisher.variances(lower, row), fisher.force_scores(lower, rows, 36)[0]])
    np.testing.assert_allclose(found[0], found[1], rtol=1e-9)


def test_sketches_converge_to_the_exact_numerator(case):
    potential, params, s, neighbors = case
    rows = np.asarray(force_rows(potential, params, s, neighbors))
    lower = jnp.asarray(fisher.fisher(rows.T @ rows + np.eye(rows.shape[1])).lower)
    exact = float(jnp.mean(fisher.variances(lower, jnp.asarray(rows))))
    signs = fisher.random_signs(jax.random.key(0), 400 * fisher.SIGNS, 12)
    sketches = jnp.asarray(signs.reshape(len(signs), -1)) @ rows
    np.testing.assert_allclose(
        sketched_rows(potential, params, s, neighbors, signs[:4]), sketches[:4],
        rtol=1e-7, atol=1e-10,
    )  # fmt: skip
    by_eight = sketches.reshape(400, fisher.SIGNS, -1)
    score = jax.jit(jax.vmap(lambda some: fisher.sketched_score(lower, some, 36)))
    estimates = np.asarray(score(by_eight))
    error = np.std(estimates) / np.sqrt(len(estimates))
    assert abs(np.mean(estimates) - exact) < 4 * error
    assert error < 0.05 * exact


def labeled(count, seed=0):
    """Structures of two sizes with made-up labels."""
    rng = np.random.default_rng(seed)
    made = [liquid(seed + i, atoms=12 if i % 3 else 9, species=KINDS) for i in range(count)]
    nothing = {"stress": np.full((3, 3), np.nan), "dipole": np.full(3, np.nan)}
    labels = [
        Labels(
            energy=rng.normal(), forces=rng.normal(size=(len(s.species), 3)),
            charges=np.full(len(s.species), np.nan),
            atomic_energies=np.full(len(s.species), np.nan), **nothing,
        )
        for s in made
    ]  # fmt: skip
    return datasets.append(datasets.empty(), made, labels, [{}] * count)


@pytest.mark.slow
def test_streamed_scores_equal_explicit_inverses():
    """Every score of a committee from full matrices, inverted, one structure at a time."""
    potential = POTENTIALS["behler_parrinello"]
    params = [
        prepared(potential, [liquid(seed, species=KINDS) for seed in (1, 2)], CAPACITY, seed=member)
        for member in range(2)
    ]
    both = jax.tree.map(lambda *leaves: jnp.stack(leaves), *params)
    known, pool = labeled(6), labeled(3, seed=51)
    names = ("qs1", "qs1_saturated", "qs2", "qs2_largest", "known_qs2", "known_qs2_largest")
    found = evidence.gather(potential, both, pool, known, (*names, "atomic_qs1"))
    expected = dict.fromkeys(names, 0.0)
    for one in params:
        rows = {"known": [], "pool": []}
        residuals = []
        for name, data in (("known", known), ("pool", pool)):
            for i, s in enumerate(datasets.structures(data)):
                s = jax.tree.map(jnp.asarray, s)
                neighbors = table(s, CUTOFF, CAPACITY)
                g = energy_row(potential, one, s, neighbors)
                rows[name].append((g, force_rows(potential, one, s, neighbors)))
                value, forces = both_of(potential, one, s, neighbors)
                if name == "known":
                    labels = datasets.labels(data, i)
                    residuals.append((value - labels.energy, (forces - labels.forces).ravel()))
        energy_noise = np.mean([e**2 for e, _ in residuals]) / 6
        force_noise = np.mean([np.mean(f**2) for _, f in residuals]) / 6
        a = sum(np.outer(g, g) for g, _ in rows["known"])
        b = sum(np.asarray(f).T @ np.asarray(f) for _, f in rows["known"])
        a, b = (np.linalg.inv(m + 1e-6 * np.trace(m) / 10 * np.eye(10)) for m in (a, b))
        for prefix, name in (("known_", "known"), ("", "pool")):
            q = np.array([float(g @ a @ g) for g, _ in rows[name]])
            if name == "pool":
                expected["qs1"] = expected["qs1"] + energy_noise * q / 2
                expected["qs1_saturated"] += energy_noise * q / (1 + q) / 2
            each = [np.einsum("if,fg,ig->i", f, b, f) for _, f in rows[name]]
            for score, of_rows in (("qs2", np.mean), ("qs2_largest", np.max)):
                values = np.array([force_noise * of_rows(q / (1 + q)) for q in each])
                expected[prefix + score] = expected[prefix + score] + values / 2
    for name, value in expected.items():
        np.testing.assert_allclose(getattr(found, name), value, rtol=2e-6, err_msg=name)
    assert found.atomic_qs1.shape == (3, 12)
    assert np.all(found.atomic_qs1[0, 9:] == 0)
    assert np.all(found.atomic_qs1[1] > 0)


@pytest.mark.slow
def test_gradient_features_estimate_the_tangent_kernel():
    potential = POTENTIALS["behler_parrinello"]
    params = prepared(potential, [liquid(1, species=KINDS)] * 2, CAPACITY)
    pool = labeled(4)
    both = jax.tree.map(lambda leaf: leaf[None], params)
    found = evidence.gradient_features(potential, both, pool, count=4000)

    def slope(s):
        s = jax.tree.map(jnp.asarray, s)

        def value(trained):
            total = energy(potential, {**params, **trained}, s, table(s, CUTOFF, CAPACITY))
            return total / s.species.shape[0]

        trained = {"body": params["body"], "readout": params["readout"]}
        return np.concatenate([x.ravel() for x in jax.tree.leaves(jax.grad(value)(trained))])

    exact = np.stack([slope(s) for s in datasets.structures(pool)])
    kernel, estimate = exact @ exact.T, found @ found.T
    assert np.max(np.abs(estimate - kernel)) < 0.1 * np.max(kernel)


def test_what_cannot_be_scored_is_refused():
    with pytest.raises(BadInput, match="finite"):
        fisher.fisher(np.array([[np.nan]]))
    with pytest.raises(BadInput, match="zero"):
        fisher.fisher(np.zeros((3, 3)))
    with pytest.raises(BadInput, match="prior"):
        fisher.fisher(np.eye(3), prior=0.0)
    classical = ml_bop((8,))
    nothing = {"body": {}, "readout": {}, "constants": {}}
    with pytest.raises(BadInput, match="readout"):
        scores.information(classical, nothing, labeled(2))
    potential = POTENTIALS["behler_parrinello"]
    params = prepared(potential, [liquid(1, species=KINDS)] * 2, CAPACITY)
    both = jax.tree.map(lambda leaf: leaf[None], params)
    with pytest.raises(BadInput, match="training set"):
        scores.information(potential, both, datasets.empty())


@pytest.mark.slow
def test_information_counts_what_is_labeled_only():
    """Structures without forces add nothing to the information of forces, nor to their noise."""
    potential = POTENTIALS["behler_parrinello"]
    params = prepared(potential, [liquid(1, species=KINDS)] * 2, CAPACITY)
    both = jax.tree.map(lambda leaf: leaf[None], params)
    known = datasets.select(labeled(6), [1, 2, 4])
    rows = slice(known.offsets[2], known.offsets[3])
    forces = known.forces.copy()
    forces[rows] = np.nan
    some = scores.information(potential, both, known._replace(forces=forces), forces=True)
    first = scores.information(potential, both, datasets.select(known, [0, 1]), forces=True)
    assert some.labeled == {"energy": 3, "forces": 2}
    np.testing.assert_allclose(some.forces, first.forces, rtol=1e-9)
    np.testing.assert_allclose(some.force_noise, first.force_noise, rtol=1e-9)
    assert not np.allclose(some.energy, first.energy)
    nothing = known._replace(forces=np.full_like(forces, np.nan))
    with pytest.raises(BadInput, match="expected forces among the labels"):
        scores.information(potential, both, nothing, energy=False, forces=True)


def test_rank_and_prior_are_told():
    rows = np.random.default_rng(0).normal(size=(3, 8))
    found = fisher.fisher(rows.T @ rows)
    assert found.rank == 3
    np.testing.assert_allclose(found.prior, 1e-6 * np.sum(rows**2) / 8)
    np.testing.assert_allclose(
        found.lower @ found.lower.T, rows.T @ rows + found.prior * np.eye(8), atol=1e-12
    )


def test_rankings_do_not_hang_on_the_prior():
    rng = np.random.default_rng(1)
    mixing = rng.normal(size=(8, 8))
    known, pool = (rng.normal(size=(n, 8)) @ mixing for n in (60, 200))
    found = []
    for prior in (1e-8, 1e-6, 1e-4):
        lower = jnp.asarray(fisher.fisher(known.T @ known, prior=prior).lower)
        found.append(np.asarray(fisher.variances(lower, jnp.asarray(pool))))
    orders = [np.argsort(np.argsort(q)) for q in found]
    for order in orders[1:]:
        assert np.corrcoef(order, orders[0])[0, 1] > 0.99
