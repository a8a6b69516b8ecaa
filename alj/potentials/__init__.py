"""Atomic energies of structures: every potential is one builder."""

from alj.potentials.atomistic import behler_parrinello
from alj.potentials.lennard_jones import lennard_jones
from alj.potentials.ml_bop import ml_bop

POTENTIALS = (behler_parrinello, ml_bop, lennard_jones)
