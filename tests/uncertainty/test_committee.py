"""Spreads of a committee against NumPy on its members, and as evidence for selectors."""

import jax
import jax.numpy as jnp
import numpy as np
from sampling.springs import clusters, springs

from alj.campaign import datasets, evidence
from alj.geometry.neighbors import batch_tables
from alj.potentials.combine import energy_and_forces
from alj.types import Context
from alj.uncertainty import atomic_energy_spread, force_spread


def test_spreads_are_standard_deviations_over_members():
    potential, constants = springs(), np.array([0.4, 0.5, 0.8])
    params = {"body": {"spring": jnp.asarray(constants)}, "readout": {}, "constants": {}}
    batch = clusters(1)
    tables = batch_tables(batch, potential.cutoff)
    one, table = jax.tree.map(lambda x: x[0], (batch, tables))
    forces, energies = [], []
    for spring in constants:
        member = {"body": {"spring": jnp.asarray(spring)}, "readout": {}, "constants": {}}
        forces.append(energy_and_forces(potential, member, one, table)[1])
        energies.append(potential.atomic_energies(member, one, table))
    context = Context(params=params)
    expected = np.linalg.norm(np.std(forces, axis=0, ddof=1), axis=-1)
    np.testing.assert_allclose(force_spread(potential)(context, one, table), expected, rtol=1e-12)
    expected_energies = np.std(energies, axis=0, ddof=1)
    found = atomic_energy_spread(potential)(context, one, table)
    np.testing.assert_allclose(found, expected_energies, rtol=1e-12)

    pool = datasets.append(datasets.empty(), [jax.tree.map(np.asarray, one)])
    needs = ("force_spread", "energy_spread", "descriptors")
    seen = evidence.gather(potential, params, pool, pool, needs)
    np.testing.assert_allclose(seen.force_spread[0], expected, rtol=1e-12)
    per_atom = np.std([np.sum(e) for e in energies], ddof=1) / 4
    np.testing.assert_allclose(seen.energy_spread[0], per_atom, rtol=1e-12)
    assert seen.descriptors.shape[0] == 1
