"""Tosi and Fumi's sodium chloride against an independent code."""

import jax
import numpy as np
import pytest
from ase.io import read
from potentials.liquids import liquid, structure, table

from alj.labeling import nacl_tosi_fumi as labeler
from alj.potentials import nacl_tosi_fumi
from alj.potentials.combine import everything
from alj.types import BadInput, LabelingFailed, Structure


def compiled(potential):
    params = potential.init(jax.random.key(0))
    return jax.jit(lambda s, n: everything(potential, params, s, n))


@pytest.fixture(scope="module")
def frames():
    from pathlib import Path

    return read(Path(__file__).parents[1] / "data" / "nacl_crosscheck_10.extxyz", ":")


def test_equals_the_reference(frames):
    program = compiled(nacl_tosi_fumi((11, 17)))
    pairs = compiled(nacl_tosi_fumi((11, 17), coulomb=False))
    assert len(frames) == 10
    for frame in frames:
        s = structure(frame.positions, frame.numbers, frame.cell.array)
        neighbors = table(s, 10.0, 256)
        energy, forces, stress, atomic = program(s, neighbors)
        assert abs(float(energy) - frame.get_potential_energy()) < 1e-6
        np.testing.assert_allclose(forces, frame.get_forces(), atol=1e-6, rtol=0)
        virial = np.reshape(frame.info["virial"], (3, 3))
        np.testing.assert_allclose(-frame.cell.volume * stress, virial, atol=1e-6, rtol=0)
        np.testing.assert_allclose(atomic, frame.arrays["e_atom"], atol=1e-7, rtol=0)
        alone = pairs(s, neighbors)[3]
        np.testing.assert_allclose(alone, frame.arrays["e_bmh"], atol=1e-12, rtol=0)


def test_a_mesh_serves_as_well(frames):
    frame = frames[0]
    s = structure(frame.positions, frame.numbers, frame.cell.array)
    program = compiled(nacl_tosi_fumi((11, 17), accuracy=1e-5, mesh=(24, 24, 24)))
    _, forces, _, _ = program(s, table(s, 10.0, 256))
    np.testing.assert_allclose(forces, frame.get_forces(), atol=1e-4, rtol=0)


def labeled(frame):
    return Structure(
        frame.positions,
        frame.numbers.astype(np.int32),
        frame.cell.array,
        np.int32(0),
        np.int32(0),
    )


def test_labels_share_out_either_energy(frames):
    one = labeled(frames[0])
    whole, pairs = labeler().label(one), labeler(atomic_energies="short_range").label(one)
    np.testing.assert_allclose(whole.atomic_energies, frames[0].arrays["e_atom"], atol=1e-7)
    np.testing.assert_allclose(pairs.atomic_energies, frames[0].arrays["e_bmh"], atol=1e-12)
    np.testing.assert_allclose(pairs.energy, whole.energy, rtol=1e-12)
    np.testing.assert_allclose(pairs.forces, whole.forces, atol=1e-11)
    assert labeler().settings != labeler(atomic_energies="short_range").settings


def test_what_is_refused(frames):
    with pytest.raises(BadInput, match="Na and Cl"):
        nacl_tosi_fumi((8,))
    with pytest.raises(BadInput, match="cutoff_A"):
        nacl_tosi_fumi((), coulomb=False, cutoff_A=0.0)
    charged = jax.tree.map(np.asarray, liquid(1, species=(11, 11, 17)))
    with pytest.raises(LabelingFailed, match="must be neutral") as caught:
        labeler(cutoff_A=4.0).label(charged)
    assert caught.value.kind == "bad_input"
    slab = labeled(frames[0])
    with pytest.raises(LabelingFailed, match="slab"):
        labeler().label(slab._replace(cell=slab.cell * np.array([[1.0], [1.0], [0.0]])))
