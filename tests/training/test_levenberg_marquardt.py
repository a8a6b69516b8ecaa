"""Levenberg-Marquardt against explicit NumPy steps, scipy's minimum, and its own other form."""

from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.optimize
from training.toys import take, toy_batch, toy_potential

from alj.potentials.combine import energy_and_forces
from alj.training import fit, levenberg_marquardt
from alj.training.batching import raveled
from alj.training.descriptions import describe
from alj.training.least_squares import Target, direction, linearize
from alj.types import BadInput

POTENTIAL = toy_potential()
BATCH = toy_batch(14)
PARAMS = POTENTIAL.prepare(POTENTIAL.init(jax.random.key(4)), (BATCH,))
FORCES = ("energy", "forces")


@jax.jit
def _predict(vector):
    params = raveled(PARAMS)[1](vector)
    some = (BATCH.structures, BATCH.neighbors)
    return jax.vmap(lambda s, n: energy_and_forces(POTENTIAL, params, s, n))(*some)


def slow_residuals(vector, factors):
    """Residuals the slow way: no descriptions, no masks, NumPy arithmetic."""
    energy, forces = _predict(vector)
    of_energy = factors[0] * (np.asarray(energy) - np.asarray(BATCH.labels.energy)) / 5
    of_forces = factors[1][:, None, None] * (np.asarray(forces) - np.asarray(BATCH.labels.forces))
    return np.concatenate([of_energy, of_forces.ravel()])


def slow_jacobian(vector, factors):
    step = 1e-5
    columns = []
    for direction_ in np.eye(len(vector)):
        ahead, behind = vector + step * direction_, vector - step * direction_
        difference = slow_residuals(ahead, factors) - slow_residuals(behind, factors)
        columns.append(difference / (2 * step))
    return np.stack(columns, axis=1)


@pytest.mark.parametrize("described", [True, False])
def test_one_step_equals_numpy(described):
    """Primal and dual steps, two metrics of the damping, against the normal equations in NumPy."""
    generator = np.random.default_rng(0)
    factors = generator.uniform(0.0, 2.0, (2, 14))
    factors[:, 3] = 0.0
    vector, rebuild = raveled(PARAMS)
    once = describe(POTENTIAL, BATCH, FORCES, "once" if described else "anew")
    target = Target(BATCH, once, *map(jnp.asarray, factors))
    residual, jacobian = slow_residuals(vector, factors), slow_jacobian(vector, factors)
    damping = generator.uniform(0.1, 1.0, len(vector))
    hessian = jacobian.T @ jacobian + np.diag(0.01 + damping)
    expected = -np.linalg.solve(hessian, jacobian.T @ residual + 0.01 * np.asarray(vector))

    @jax.jit
    def steps(vector):
        both = [
            linearize(POTENTIAL, FORCES, vector, rebuild, (target,), dual=dual)
            for dual in (False, True)
        ]
        moves = [direction(linear, vector, 0.01, jnp.asarray(damping)) for linear in both]
        return moves, [linear.cost for linear in both], [linear.gradient for linear in both]

    moves, costs, gradients = steps(vector)
    assert np.allclose(moves[0], expected, rtol=1e-6, atol=1e-8)
    assert np.allclose(moves[0], moves[1], rtol=1e-10, atol=1e-10)
    assert np.allclose(costs, residual @ residual, rtol=1e-10)
    assert np.allclose(gradients, (jacobian.T @ residual)[None], rtol=1e-6, atol=1e-7)


@cache
def energies_only(form="automatic", steps=60, batch_size=None, members=2):
    trainer = levenberg_marquardt(
        POTENTIAL,
        steps=steps,
        members=members,
        split="all",
        form=form,
        batch_size=batch_size,
        energy_unit_eV=0.005,
        force_unit_eV_per_A=0.5,
    )
    return fit(jax.random.key(1), trainer, POTENTIAL, None, (BATCH,), 14)


def test_scipy_finds_nothing_lower_nearby():
    """MINPACK, started where the training ended, agrees that this is the minimum."""
    made = energies_only(steps=1000)
    params = jax.tree.map(lambda leaf: leaf[made.best], made.params)
    vector, rebuild = raveled(params)
    described = jax.vmap(POTENTIAL.describe)(BATCH.structures, BATCH.neighbors)

    @jax.jit
    def predict(vector):
        return jax.vmap(POTENTIAL.evaluate, (None, 0))(rebuild(vector), described).sum(axis=1)

    def residuals(vector):
        data = (np.asarray(predict(vector)) - np.asarray(BATCH.labels.energy)) / 5 / 0.005
        return np.concatenate([data, np.sqrt(1e-4) * vector])

    here = np.sum(residuals(np.asarray(vector)) ** 2)
    best = scipy.optimize.least_squares(residuals, np.asarray(vector), method="lm", xtol=1e-12)
    assert 2 * best.cost > 0.98 * here
    assert here < 0.2 * np.sum((np.asarray(BATCH.labels.energy) / 5 / 0.005) ** 2)


@cache
def forced():
    return levenberg_marquardt(POTENTIAL, steps=30, members=2, force_weight=1.0, damping=0.5)


@pytest.mark.slow
def test_forces_improve_forces():
    """Eight structures with forces against the same eight with energies, on unseen structures."""
    train, unseen = take(BATCH, list(range(8))), toy_batch(14, seed=7)

    def force_error(trainer):
        made = fit(jax.random.key(2), trainer, POTENTIAL, None, (train,), 8, block=1)
        errors = []
        for member in range(2):
            params = jax.tree.map(lambda leaf: leaf[member], made.params)
            found = jax.jit(
                jax.vmap(lambda s, n, p: energy_and_forces(POTENTIAL, p, s, n), (0, 0, None))
            )(unseen.structures, unseen.neighbors, params)[1]
            errors.append(np.sqrt(np.mean(np.asarray(found - unseen.labels.forces) ** 2)))
        return np.mean(errors)

    energies = levenberg_marquardt(POTENTIAL, steps=30, members=2)
    assert force_error(forced()) < 0.7 * force_error(energies)


def test_a_batch_of_everything_is_the_full_batch():
    whole, batched = energies_only("primal", 5), energies_only("primal", 5, 32)
    assert np.allclose(whole.loss, batched.loss, rtol=1e-6)


def test_a_step_is_judged_on_its_own_batch():
    """Judged on another batch nearly every step would be refused and the fit would freeze."""
    made = energies_only("automatic", 20, 4)
    assert np.all(made.loss < 0.2)
    assert np.all(made.history.pace[-1] < 10.0)


def test_a_stalled_fit_restarts_with_another_metric():
    train = take(BATCH, list(range(8)))

    def one_more(resume):
        """The state one step later."""
        kept = {}

        def keep(done, state, progress):
            kept["state"] = state
            return True

        fit(
            jax.random.key(1),
            forced(),
            POTENTIAL,
            None,
            (train,),
            8,
            resume=resume,
            on_block=keep,
            block=1,
        )
        return kept["state"]

    state = one_more(None)
    stalled = jnp.asarray([9, 3], jnp.int32)
    stuck = state.inner._replace(damping=jnp.full(2, 1e9), stalled=stalled)
    after = one_more((1, state._replace(inner=stuck))).inner
    assert np.array_equal(after.diagonal, [True, False])
    assert after.damping[0] == 0.5
    assert after.damping[1] > 100


def test_a_member_stops_after_its_patience_and_the_others_go_on():
    trainer = levenberg_marquardt(POTENTIAL, steps=40, members=3, patience=3, l2=0.0)
    made = fit(jax.random.key(1), trainer, POTENTIAL, None, (BATCH,), 14)
    stopped = made.history.stopped
    assert np.any(stopped[-1])
    for member in range(3):
        losses = made.history.validation_loss[:, member]
        frozen = losses[stopped[:, member]]
        assert np.all(frozen == frozen[:1])
        assert made.loss[member] == pytest.approx(np.min(losses), rel=1e-12)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"damping": 0.0}, "damping > 0"),
        ({"energy_weight": 0.0}, "not be negative nor both 0"),
        ({"members": 0}, "members must be at least 1"),
        ({"validation_fraction": 1.5}, "between 0 and 1"),
    ],
)
def test_bad_settings_are_refused(settings, message):
    with pytest.raises(BadInput, match=message):
        levenberg_marquardt(POTENTIAL, **settings)
