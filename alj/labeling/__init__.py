"""Reference engines behind one Protocol: `label(structure)` in eV and Å, or LabelingFailed."""

from alj.labeling.in_jax import lennard_jones, ml_bop_water

LABELERS = (ml_bop_water, lennard_jones)
