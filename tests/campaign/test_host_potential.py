"""Engines as potentials: the same energies, forces and stresses, and failures that are heard."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from alj.arrays import stack_trees
from alj.campaign.host_potential import host_potential
from alj.geometry.neighbors import batch_tables, neighbor_table, table_size
from alj.labeling import build_labeler
from alj.potentials import combine
from alj.potentials.lennard_jones import lennard_jones
from alj.types import BadInput, LabelingFailed, Structure


def argon(seed=0, cell=None):
    generator = np.random.default_rng(seed)
    cell = np.array([[11.0, 0, 0], [1.0, 10.5, 0], [-0.7, 0.6, 10.8]]) if cell is None else cell
    grid = np.stack(np.meshgrid(*[np.arange(2)] * 3), axis=-1).reshape(-1, 3)
    positions = (grid / 2.0) @ cell + generator.normal(0, 0.2, (8, 3))
    return Structure(
        jnp.asarray(positions), jnp.full(8, 18), jnp.asarray(cell), jnp.asarray(0), jnp.asarray(0)
    )


class Silent:
    """A labeler without a stress, which fails or raises as told."""

    name, settings = "silent", {}

    def __init__(self, error=None):
        self.error, self.inner, self.calls = error, build_labeler("lennard_jones"), 0

    def label(self, structure):
        self.calls += 1
        if self.error is not None:
            raise self.error
        return self.inner.label(structure)._replace(stress=np.full((3, 3), np.nan))


def asked(potential, structure):
    params = potential.init(jax.random.key(0))
    size = table_size(jax.tree.map(lambda x: x[None], structure), potential.cutoff)
    table = neighbor_table(structure, potential.cutoff, size)
    return combine.energy_forces_stress(potential, params, structure, table)


@pytest.mark.slow
def test_it_answers_as_the_potential_does_that_the_engine_stands_for():
    host = host_potential(build_labeler("lennard_jones")).potential
    for structure in (argon(1), argon(2)):
        expected = asked(lennard_jones(()), structure)
        for one, other in zip(asked(host, structure), expected, strict=True):
            np.testing.assert_allclose(one, other, rtol=1e-10, atol=1e-12)


def test_a_batch_is_the_same_as_one_by_one_and_padding_is_nothing():
    found = host_potential(build_labeler("lennard_jones"))
    both = stack_trees([argon(1), argon(2)])
    params = found.potential.init(jax.random.key(0))
    tables = batch_tables(both, found.potential.cutoff)
    many = jax.jit(jax.vmap(lambda s, t: combine.energy_and_forces(found.potential, params, s, t)))(
        both, tables
    )
    assert found.log.calls == 2
    for i, structure in enumerate((argon(1), argon(2))):
        energy, forces, _ = asked(found.potential, structure)
        assert many[0][i] == energy
        np.testing.assert_array_equal(many[1][i], forces)
    assert found.log.calls == 2  # remembered
    assert found.log.known(argon(1)) is not None
    padded = argon(1)._replace(
        positions=jnp.concatenate([argon(1).positions, jnp.zeros((2, 3))]),
        species=jnp.append(argon(1).species, jnp.zeros(2, int)),
    )
    energy, forces, _ = asked(found.potential, padded)
    assert energy == pytest.approx(float(many[0][0]), rel=1e-12)
    np.testing.assert_array_equal(forces[8:], 0.0)


def test_without_a_stress_forces_are_fine_and_the_virial_is_unknown():
    found = host_potential(Silent()).potential
    energy, forces, stress = asked(found, argon(1))
    assert np.isfinite(energy)
    assert np.isfinite(forces).all()
    assert np.isnan(stress).all()


def test_a_failure_is_no_number_and_its_reason_is_kept():
    for error, words in (
        (LabelingFailed("not_converged", "it swings"), "not_converged: it swings"),
        (ZeroDivisionError("in\nthe engine"), "crash: ZeroDivisionError: in the engine"),
    ):
        found = host_potential(Silent(error))
        assert np.isnan(asked(found.potential, argon(1))[0])
        assert found.log.failure_of(0, 1) == words
        found.log.check()


def test_what_is_fatal_is_raised_behind_the_program():
    labeler = Silent(BadInput("the engine is not installed"))
    found = host_potential(labeler)
    both = stack_trees([argon(1), argon(2)])
    params = found.potential.init(jax.random.key(0))
    tables = batch_tables(both, found.potential.cutoff)
    energies = jax.vmap(lambda s, t: combine.energy(found.potential, params, s, t))(both, tables)
    assert np.isnan(energies).all()
    assert labeler.calls == 1
    with pytest.raises(BadInput, match="not installed"):
        found.log.check()


def test_replicas_of_one_walk_share_its_failures():
    log = host_potential(Silent()).log
    log.failures[5] = (8, "it swings")
    assert log.failure_of(2, 4) == "it swings"
    assert log.failure_of(1, 4) is None
    assert log.first_failure(4) == (2, "it swings")
