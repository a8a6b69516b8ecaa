"""Labels from a process of their own, and a network as a level of a walk that asks it there."""

import ase
import ase.io
import numpy as np
import pytest
from campaign.tiny import CONFIG, cluster, trained

from alj.calculator import load
from alj.campaign import models
from alj.campaign.elsewhere import Elsewhere, beside
from alj.labeling import build_labeler
from alj.types import LabelingFailed

SOFT = {
    "name": "ase",
    "calculator": "ase.calculators.lj.LennardJones",
    "keywords": {"epsilon": 0.02, "sigma": 2.3, "rc": 7.0, "smooth": True},
}


@pytest.fixture(scope="module")
def network(tmp_path_factory):
    """A network, and the `labeler` section that makes it a level."""
    path = tmp_path_factory.mktemp("run")
    models.save(
        path / "model", potential_config=CONFIG, species=(8,), params=trained()[1],
        precision="float64", provenance={},
    )  # fmt: skip
    keywords = {"path": str(path), "uncertainty": False}
    section = {
        "name": "ase", "calculator": "alj.calculator.load", "keywords": keywords,
        "keep_calculator": True,
    }  # fmt: skip
    return path, section


def droplet():
    return cluster(0, cell=np.zeros((3, 3)))


def test_what_may_run_jax_goes_elsewhere_and_nothing_else(network):
    _, section = network
    plain = build_labeler(SOFT)
    assert beside(plain) is plain
    assert isinstance(beside(build_labeler(section)), Elsewhere)
    two = {"name": "two_level", "low": SOFT, "region": [0]}
    assert isinstance(beside(build_labeler({**two, "high": section})), Elsewhere)
    assert not isinstance(beside(build_labeler({**two, "high": SOFT})), Elsewhere)


@pytest.mark.slow
def test_a_network_is_a_level_and_its_labels_come_from_elsewhere(network):
    path, section = network
    region = [0, 1, 2, 3]
    spec = {"name": "two_level", "high": section, "low": SOFT, "region": region, "links": []}
    labeler, one = build_labeler(spec), droplet()
    low, part = build_labeler(SOFT), ase.Atoms("O4", one.positions[region])
    part.calc = load(path)
    inner = one._replace(positions=one.positions[region], species=one.species[region])
    by_hand = float(low.label(one).energy) - float(low.label(inner).energy)
    found = Elsewhere(labeler).label(one)
    expected = by_hand + part.get_potential_energy()
    assert float(found.energy) == pytest.approx(expected, abs=1e-6)
    same = labeler.label(one)
    np.testing.assert_allclose(found.forces, same.forces, atol=1e-9)
    with pytest.raises(LabelingFailed, match="not finite"):
        Elsewhere(labeler).label(one._replace(positions=one.positions * np.nan))


@pytest.mark.slow
def test_a_walk_with_a_network_for_a_region_goes_on(alj, network, tmp_path):
    """`alj sample` asks it from inside a compiled program."""
    from alj.campaign.config import dump

    spec = {"name": "two_level", "high": network[1], "low": SOFT, "region": [0, 1], "links": []}
    (tmp_path / "level.yaml").write_text(dump({"labeler": spec}))
    one = droplet()
    ase.io.write(tmp_path / "start.extxyz", ase.Atoms(one.species, one.positions))
    code, text, error = alj(
        "sample", "level.yaml", "start.extxyz", "--sampler", "nve", "--set", "temperature_K=50",
        "--set", "timestep_fs=0.5", "--set", "steps=40", "--set", "record_every=10", "--out", "md",
    )  # fmt: skip
    assert code == 0, error + text
    frames = ase.io.read(tmp_path / "md" / "trajectory.extxyz", ":")
    assert len(frames) == 4
    energies = [frame.get_total_energy() for frame in frames]
    assert np.ptp(energies) < 2e-3
