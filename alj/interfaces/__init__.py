"""Other people's programs, moved by our potentials: jax-md, LAMMPS, i-PI. ASE: `alj.calculator`."""
