"""The sparse Gaussian process beside gap_fit: training, its error, energy and forces, one core.

    taskset -c 0 python benchmarks/gaussian_process.py --data pool.extxyz [--gap PREFIX]

`--data` holds labeled structures of molten salt (`experiments/salt_pool.py` makes them); 16 or 32
of them at random train, 100 others test. `--gap` is the folder of an environment of its own with
quippy-ase (`python -m venv PREFIX && PREFIX/bin/pip install quippy-ase==0.10.3`), whose `gap_fit`
gets the same structures and Table 3's settings. Every training is a process of its own, so that its
memory is its own; times include starting, and for `alj` compiling. float64.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

CASES = ((16, 400, 0.05), (16, 800, 0.02), (32, 400, 0.05))
"""Configurations, inducing points of each element, noise of the forces in eV/Å."""

ENERGY_NOISE = 0.002


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data", required=True)
    parser.add_argument("--gap", type=Path)
    parser.add_argument("--case", type=int, nargs="*", default=range(len(CASES)))
    parser.add_argument("--one", nargs=3, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.one:
        ours(given.data, int(given.one[0]), int(given.one[1]), float(given.one[2]))
        return
    print("program  configurations  points  noise   RMSE eV/Å  largest   wall s   cpu s     GB")
    for configurations, points, noise in (CASES[case] for case in given.case):
        with tempfile.TemporaryDirectory() as folder:
            runs = [("alj", [sys.executable, __file__, "--data", given.data, "--one",
                             str(configurations), str(points), str(noise)])]  # fmt: skip
            if given.gap:
                write(given.data, configurations, Path(folder))
                runs.append(("gap_fit", gap(given.gap, Path(folder), points, noise)))
            for name, command in runs:
                before, clock = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
                done = subprocess.run(
                    command, capture_output=True, text=True, env=environment(), check=False
                )
                wall = time.monotonic() - clock
                after = resource.getrusage(resource.RUSAGE_CHILDREN)
                if done.returncode:
                    print(f"{name}: failed\n{done.stderr[-2000:]}")
                    continue
                if name == "alj":
                    told = json.loads(done.stdout.splitlines()[-1])
                else:
                    told = {**tested(given.gap, Path(folder)), "GB": float("nan")}
                cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
                memory = told["GB"] if name == "alj" else peak(done.stderr)
                print(
                    f"{name:8s} {configurations:14d} {points:7d} {noise:6.2f} {told['rmse']:11.4f} "
                    f"{told['max']:8.3f} {wall:8.1f} {cpu:7.1f} {memory:6.2f}", flush=True,
                )  # fmt: skip
                if name == "alj":
                    print(f"         {told['about']}")


def environment() -> dict[str, str]:
    """One thread."""
    flags = "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1"
    return {**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "XLA_FLAGS": flags}


def divided(path: str, configurations: int):
    """The same training and test structures for both programs."""
    import numpy as np

    from alj.campaign import datasets

    data, _ = datasets.read(path)
    order = np.random.default_rng(0).permutation(datasets.count(data))
    return datasets.select(data, order[:configurations]), datasets.select(data, order[-100:])


def ours(path: str, configurations: int, points: int, noise: float) -> None:
    """Train, test, time energy and forces; one line of JSON."""
    import jax

    jax.config.update("jax_enable_x64", True)
    import numpy as np

    from alj.campaign import datasets, models
    from alj.campaign.evaluate import predict
    from alj.potentials import gaussian_process
    from alj.potentials.combine import energy_and_forces
    from alj.training import bayesian_regression, fit

    train, test = divided(path, configurations)
    potential = gaussian_process((11, 17), inducing_points=points)
    trainer = bayesian_regression(
        potential, force_noise_eV_per_A=noise, energy_noise_eV=ENERGY_NOISE
    )
    began = time.monotonic()
    batches = datasets.batches(train, potential.cutoff, count_bucket=False)
    made = fit(jax.random.key(0), trainer, potential, None, batches, configurations)
    fitting = time.monotonic() - began
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    found = predict(models.model_of(potential, made.params, {}), test)
    wrong = found.forces - test.forces
    one = jax.tree.map(lambda leaf: leaf[0], made.params)
    pair = jax.tree.map(lambda leaf: leaf[0], (batches[0].structures, batches[0].neighbors))
    program = jax.jit(lambda p, s, n: energy_and_forces(potential, p, s, n))
    jax.block_until_ready(program(one, *pair))
    times = []
    for _ in range(5):
        clock = time.perf_counter()
        jax.block_until_ready(program(one, *pair))
        times.append(time.perf_counter() - clock)
    print(json.dumps({
        "rmse": float(np.sqrt(np.mean(wrong**2))), "max": float(np.abs(wrong).max()),
        "GB": memory,
        "about": f"fit {fitting:.1f} s; energy and forces of 100 ions {1e3 * min(times):.1f} ms",
    }))  # fmt: skip


def write(path: str, configurations: int, folder: Path) -> None:
    """Both sets as gap_fit reads them, virials (-V·stress) left out as in `alj`'s training."""
    import ase
    import ase.io

    from alj.campaign import datasets

    for name, data in zip(("train", "test"), divided(path, configurations), strict=True):
        frames = []
        for i in range(datasets.count(data)):
            one, labels = datasets.structure(data, i), datasets.labels(data, i)
            atoms = ase.Atoms(one.species, one.positions, cell=one.cell, pbc=True)
            atoms.info["ref_energy"] = float(labels.energy)
            atoms.arrays["ref_forces"] = labels.forces
            frames.append(atoms)
        ase.io.write(folder / f"{name}.xyz", frames, format="extxyz")


def gap(prefix: Path, folder: Path, points: int, noise: float) -> list[str]:
    """gap_fit's command, under `time` for its memory."""
    soap = (
        "soap l_max=6 n_max=8 atom_sigma=0.825 zeta=4 cutoff=6.5 cutoff_transition_width=0.5 "
        f"delta=1.0 covariance_type=dot_product n_sparse={points} sparse_method=cur_points "
        "add_species=T"
    )
    command = [
        str(prefix / "bin" / "gap_fit"), f"at_file={folder / 'train.xyz'}", f"gap={{{soap}}}",
        f"default_sigma={{{ENERGY_NOISE} {noise} 0.0 0.0}}", "energy_parameter_name=ref_energy",
        "force_parameter_name=ref_forces", "virial_parameter_name=none", "e0_method=average",
        "sparse_jitter=1e-8", "do_copy_at_file=F", "sparse_separate_file=T",
        f"gp_file={folder / 'gap.xml'}",
    ]  # fmt: skip
    code = (
        "import resource, subprocess, sys; done = subprocess.run(sys.argv[1:]); "
        "print('peak', resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss, file=sys.stderr); "
        "sys.exit(done.returncode)"
    )
    return [str(prefix / "bin" / "python"), "-c", code, *command]


def peak(text: str) -> float:
    """Memory in GB, from the line that the wrapper writes."""
    lines = [line for line in text.splitlines() if line.startswith("peak ")]
    return int(lines[-1].split()[1]) / 1e6 if lines else float("nan")


def tested(prefix: Path, folder: Path) -> dict[str, float]:
    """Errors of the fitted potential, by quippy."""
    code = (
        "import ase.io, json, numpy as np, sys\nfrom quippy.potential import Potential\n"
        "pot = Potential('', param_filename=sys.argv[1] + '/gap.xml')\nwrong = []\n"
        "for atoms in ase.io.read(sys.argv[1] + '/test.xyz', ':'):\n"
        "    atoms.calc = pot\n    wrong.append(atoms.get_forces() - atoms.arrays['ref_forces'])\n"
        "wrong = np.concatenate(wrong)\n"
        "print(json.dumps({'rmse': np.sqrt(np.mean(wrong**2)), 'max': np.abs(wrong).max()}))"
    )
    done = subprocess.run(
        [str(prefix / "bin" / "python"), "-c", code, str(folder)], capture_output=True, text=True,
        check=True, env=environment(),
    )  # fmt: skip
    return json.loads(done.stdout.splitlines()[-1])


if __name__ == "__main__":
    main()
