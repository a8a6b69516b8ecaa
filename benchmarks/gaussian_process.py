"""The sparse Gaussian process beside gap_fit: training, its error, energy and forces, one core.

    taskset -c 0 python benchmarks/gaussian_process.py --data pool.extxyz [--gap PREFIX]

`--data` holds labeled structures of molten salt (`experiments/salt_pool.py` makes them); 16 or 32
of them at random train, 100 others test. `--gap` is the folder of an environment of its own with
quippy-ase (`python -m venv PREFIX && PREFIX/bin/pip install quippy-ase==0.10.3`), whose `gap_fit`
gets the same structures and Table 3's settings. Every training is a process of its own, so that its
memory is its own; times are those of starting, reading and fitting, for `alj` with compiling.
float64.
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
    parser.add_argument("--write", nargs=2, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.write:
        write(given.data, int(given.write[0]), Path(given.write[1]))
        return
    if given.one:
        ours(Path(given.one[0]), int(given.one[1]), float(given.one[2]))
        return
    print("program  configurations  points  noise   RMSE eV/Å  largest   wall s   cpu s     GB")
    for configurations, points, noise in (CASES[case] for case in given.case):
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            itself = [sys.executable, __file__, "--data", given.data]
            subprocess.run([*itself, "--write", str(configurations), name], check=True)
            runs = {"alj": [*itself, "--one", name, str(points), str(noise)]}
            if given.gap:
                runs["gap_fit"] = gap(given.gap, folder, points, noise)
            for program, command in runs.items():
                before, clock = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
                done = subprocess.run(
                    command, capture_output=True, text=True, env=environment(), check=False
                )
                wall = time.monotonic() - clock
                after = resource.getrusage(resource.RUSAGE_CHILDREN)
                if done.returncode:
                    print(f"{program}: failed\n{done.stderr[-2000:]}")
                    continue
                if program == "alj":
                    told = json.loads(done.stdout.splitlines()[-1])
                else:
                    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
                    told = {"wall": wall, "cpu": cpu, "GB": peak(done.stderr)}
                    told |= tested(given.gap, folder)
                print(
                    f"{program:8s} {configurations:14d} {points:7d} {noise:6.2f} "
                    f"{told['rmse']:11.4f} {told['max']:8.3f} {told['wall']:8.1f} "
                    f"{told['cpu']:7.1f} {told['GB']:6.2f}", flush=True,
                )  # fmt: skip
                if program == "alj":
                    print(f"         {told['about']}")


def environment() -> dict[str, str]:
    """One thread."""
    flags = "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1"
    return {**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "XLA_FLAGS": flags}


def write(path: str, configurations: int, folder: Path) -> None:
    """The same training and test structures for both programs, as files of their own."""
    import numpy as np

    from alj.campaign import datasets

    data, _ = datasets.read(path)
    order = np.random.default_rng(0).permutation(datasets.count(data))
    datasets.write(folder / "train.xyz", datasets.select(data, order[:configurations]))
    datasets.write(folder / "test.xyz", datasets.select(data, order[-100:]))


def ours(folder: Path, points: int, noise: float) -> None:
    """Train, test, time energy and forces; one line of JSON."""
    began = time.monotonic()
    import jax

    jax.config.update("jax_enable_x64", True)
    import numpy as np

    from alj.campaign import datasets, models
    from alj.campaign.evaluate import predict
    from alj.potentials import gaussian_process
    from alj.potentials.combine import energy_and_forces
    from alj.training import bayesian_regression, fit

    train, _ = datasets.read(folder / "train.xyz")
    potential = gaussian_process((11, 17), inducing_points=points)
    trainer = bayesian_regression(
        potential, force_noise_eV_per_A=noise, energy_noise_eV=ENERGY_NOISE
    )
    batches = datasets.batches(train, potential.cutoff, count_bucket=False)
    count = datasets.count(train)
    made = jax.block_until_ready(fit(jax.random.key(0), trainer, potential, None, batches, count))
    wall, cpu = time.monotonic() - began, time.process_time()
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    test, _ = datasets.read(folder / "test.xyz")
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
        "GB": memory, "wall": wall, "cpu": cpu,
        "about": f"energy and forces of 100 ions {1e3 * min(times):.1f} ms",
    }))  # fmt: skip


def gap(prefix: Path, folder: Path, points: int, noise: float) -> list[str]:
    """gap_fit's command, under `time` for its memory."""
    soap = (
        "soap l_max=6 n_max=8 atom_sigma=0.825 zeta=4 cutoff=6.5 cutoff_transition_width=0.5 "
        f"delta=1.0 covariance_type=dot_product n_sparse={points} sparse_method=cur_points "
        "add_species=T"
    )
    command = [
        str(prefix / "bin" / "gap_fit"), f"at_file={folder / 'train.xyz'}", f"gap={{{soap}}}",
        f"default_sigma={{{ENERGY_NOISE} {noise} 0.0 0.0}}", "energy_parameter_name=REF_energy",
        "force_parameter_name=REF_forces", "virial_parameter_name=none", "e0_method=average",
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
        "    atoms.calc = pot\n    wrong.append(atoms.get_forces() - atoms.arrays['REF_forces'])\n"
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
