"""i-PI moved by a model, through both kinds of sockets."""

import shutil
import socket
import subprocess
import sys
import uuid
from pathlib import Path

import numpy as np
import pytest
from ase import Atoms, units
from ase.build import bulk
from ase.calculators.lj import LennardJones
from ase.io import read, write
from ase.md.verlet import VelocityVerlet
from campaign.tiny import argon

from alj.interfaces.sockets import Address, serve
from alj.types import BadInput

INPUT = """
<simulation verbosity='quiet'>
  <output prefix='out'>
    <properties stride='1'>
      [step, potential{{electronvolt}}, conserved{{electronvolt}}, pressure_cv{{megapascal}}]
    </properties>
    <trajectory filename='pos' stride='{steps}'> positions{{angstrom}} </trajectory>
  </output>
  <total_steps>{steps}</total_steps>
  <prng><seed>1</seed></prng>
  <ffsocket mode='{mode}' name='driver' pbc='false'>
    <address>{address}</address> <port>{port}</port> <latency>1e-3</latency>
  </ffsocket>
  <system>
    <initialize nbeads='1'>
      <file mode='ase'> start.extxyz </file>
    </initialize>
    <forces><force forcefield='driver'/></forces>
    <ensemble><temperature units='kelvin'>40</temperature></ensemble>
    <motion mode='dynamics'>
      <dynamics mode='nve'><timestep units='femtosecond'>4.0</timestep></dynamics>
    </motion>
  </system>
</simulation>
"""
STEPS = 20


def crystal() -> Atoms:
    atoms = bulk("Ar", a=5.3, cubic=True) * (2, 2, 2)
    atoms.rattle(0.1, seed=1)
    return atoms


@pytest.mark.engine
@pytest.mark.parametrize("mode", ["unix", "inet"])
def test_i_pi_walks_as_ase_does(mode, tmp_path):
    program = shutil.which("i-pi") or str(Path(sys.executable).with_name("i-pi"))
    assert Path(program).exists(), "expected i-PI; run: pip install ipi"
    name = f"alj-{uuid.uuid4().hex[:8]}"
    port = _free_port()
    address = name if mode == "unix" else "localhost"
    (tmp_path / "input.xml").write_text(
        INPUT.format(mode=mode, address=address, port=port, steps=STEPS)
    )
    write(tmp_path / "start.extxyz", crystal())
    with (tmp_path / "log").open("w") as log:
        server = subprocess.Popen([program, "input.xml"], cwd=tmp_path, stdout=log, stderr=log)
        try:
            where = Address(unix=name) if mode == "unix" else Address(host=address, port=port)
            answered = serve(argon(cutoff_A=6.0), crystal(), where)
            assert server.wait(60) == 0
        finally:
            server.kill()
    assert answered >= STEPS
    table = np.loadtxt(tmp_path / "out.out")
    assert np.ptp(table[:, 2]) < 1e-3
    here = crystal()
    here.calc = LennardJones(epsilon=0.0104, sigma=3.4, rc=6.0)
    energies = [here.get_potential_energy()]
    dynamics = VelocityVerlet(here, 4 * units.fs)
    for _ in range(STEPS):
        dynamics.run(1)
        energies.append(here.get_potential_energy())
    assert table[:, 1] == pytest.approx(energies, abs=1e-6)
    assert np.ptp(energies) > 0.01
    # nothing moves at first: the pressure is the virial's alone
    start = crystal()
    start.calc = here.calc
    pressure = -np.trace(start.get_stress(voigt=False)) / 3 / units.GPa * 1000
    assert table[0, 3] == pytest.approx(pressure, rel=1e-4)
    frames = read(tmp_path / "out.pos_0.xyz", ":")
    assert frames[-1].positions == pytest.approx(here.positions, abs=1e-4)


def test_without_a_server_it_says_so():
    with pytest.raises(BadInput, match=r"no server at /tmp/ipi_nobody within 0.1 s"):
        serve(argon(), crystal(), Address(unix="nobody"), patience_seconds=0.1)
    port = _free_port()
    with pytest.raises(BadInput, match=rf"no server at localhost:{port}"):
        serve(argon(), crystal(), Address(port=port), patience_seconds=0.1)


def _free_port() -> int:
    with socket.socket() as one:
        one.bind(("localhost", 0))
        return one.getsockname()[1]
