"""Samplers: what explores. A builder's keyword-only signature is its configuration schema."""

from alj.sampling.monte_carlo import metropolis_mc
from alj.sampling.nested import nested_mc
from alj.sampling.npt_monte_carlo import npt_mc
from alj.sampling.perturbation import perturbation

SAMPLERS = (metropolis_mc, nested_mc, npt_mc, perturbation)
