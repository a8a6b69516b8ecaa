"""Samplers: what explores. A builder's keyword-only signature is its configuration schema."""

from alj.sampling.metadynamics import metadynamics
from alj.sampling.molecular_dynamics import DYNAMICS
from alj.sampling.monte_carlo import metropolis_mc
from alj.sampling.nested import nested_mc
from alj.sampling.npt_monte_carlo import npt_mc
from alj.sampling.perturbation import perturbation
from alj.sampling.replica_exchange import replica_exchange
from alj.sampling.steered import steered
from alj.sampling.temperature_parallel import temperature_parallel
from alj.sampling.umbrella import umbrella
from alj.sampling.uncertainty_bias import uncertainty_bias

SAMPLERS = (
    metropolis_mc,
    nested_mc,
    npt_mc,
    perturbation,
    *DYNAMICS,
    steered,
    metadynamics,
    umbrella,
    replica_exchange,
    uncertainty_bias,
    temperature_parallel,
)
