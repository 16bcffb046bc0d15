"""Learning without labels on the shared water set (PBE/def2-SVP), counted in Fock builds.

    python benchmarks/unlabelled.py water_pbe_def2svp.npz -o OUT free|equal|stretched [--minutes 1.5] [--model CKPT]

free: H of one water optimised by the energy alone, from the minao guess; builds until 1e-6 Hartree.
equal: a model of 10 labels goes on with 16 more labels, or with as many Fock builds on geometries without labels.
stretched: a model (--model, as `benchmarks/water.py` makes it) learns waters with bonds 10 to 30 % longer, from one
Fock build each; errors there and on the old test part. Minutes are processor time of one thread. A step whose output is
there is not run again; one dated JSON row.
"""

import argparse
import datetime
import json
import platform
from pathlib import Path
from typing import Any

import numpy as np
import torch
from ase import Atoms
from pyscf import gto
from water import CONFIG, hamnet, make_store

from hamnet.core.calculation import Calculation, Provenance
from hamnet.core.structure import AtomicStructure
from hamnet.core.units import HARTREE
from hamnet.data.store import Store, write_store
from hamnet.train.free_energy import descend
from hamnet.train.unlabelled import Unlabelled, UnlabelledSettings, unlabelled_config
from hamnet_preprocess.pyscf_basis import basis_of
from hamnet_preprocess.pyscf_fock import FockBuilder, Method

METHOD = Method("pbe")
SEED_LABELS, MORE_LABELS = 10, 16
STRETCHED, HELD_OUT = 16, 8


def builder_of(numbers: Any, positions: Any) -> FockBuilder:
    """Fock builder of a water."""
    atoms = [(int(z), x) for z, x in zip(numbers, positions, strict=True)]
    basis, species = basis_of(gto.M(atom=atoms, basis="def2-svp", verbose=0))
    return FockBuilder(AtomicStructure(np.asarray(numbers), species, positions), basis, METHOD)


def free(data: Any, out: Path, options: argparse.Namespace) -> dict[str, Any]:
    """Builds until E is within 1e-6 Hartree of the SCF, for five waters; the build of the guess is counted."""
    rows = []
    for k in data["test"][:5]:
        builder = builder_of(data["Z"], data["pos"][k])

        def build(density: torch.Tensor, builder: FockBuilder = builder) -> tuple[float, torch.Tensor]:
            """One Fock build."""
            result = builder.build(density.numpy())
            return result.energy, torch.from_numpy(result.fock)

        start = torch.from_numpy(builder.build(builder.minao_density()).fock)
        result = descend(start, torch.from_numpy(builder.overlap), 5, build, tolerance=1e-6)
        above = np.array(result.energies) / HARTREE - data["energy"][k]
        reference = builder.to_ours(data["fock"][k]) * HARTREE
        rows.append({
            "builds": 2 + int(np.argmax(above < 1e-6)),
            "scf_cycles": int(data["scf_cycles"][k]),
            "last_above_scf_uEh": 1e6 * float(above[-1]),
            "H_mae_uEh": 1e6 / HARTREE * float(np.abs(result.hamiltonian.numpy() - reference).mean()),
            "F_mae_uEh": 1e6 / HARTREE * float(np.abs(result.fock.numpy() - reference).mean()),
        })  # fmt: skip
    return {"waters": rows, "most_builds": max(row["builds"] for row in rows)}


def trained(out: Path, run: str, names: list[str], test: list[str], minutes: float, *more: object) -> Path:
    """model.ckpt of a training on these labels."""
    folder = out / run
    if not (folder / "model.ckpt").exists():
        split = out / f"{run}.json"
        split.write_text(json.dumps({"train": names, "validation": [], "test": test}))
        hamnet(
            "train", CONFIG, f"data.store={out / 'water.h5'}", f"data.split={split}", f"training.output={folder}",
            f"training.max_minutes={minutes}", "training.epochs=100000", "training.threads=1", "training.clock=process",
            "network.baseline=none", *more,
        )  # fmt: skip
    return folder / "model.ckpt"


def error(model: Path, store: Path, split: Path | None = None) -> float:
    """H MAE in micro-Hartree."""
    row = hamnet("evaluate", model, store, *(() if split is None else ("--split", split)))
    return 1e3 * float(str(row["hamiltonian_mae_meV_raw"])) / HARTREE


def learn(out: Path, model: Path, structures: Any, settings: UnlabelledSettings, minutes: float, split: Path) -> Any:
    """Learning without labels; `minutes` for all rounds together."""
    changes = [
        f"data.store={out.parent / 'water.h5'}", f"data.split={split}", "training.epochs=100000",
        f"training.max_minutes={minutes / settings.rounds}", "training.threads=1", "training.clock=process",
    ]  # fmt: skip
    config, labelled = unlabelled_config(model, out, changes)
    return Unlabelled(config, model, structures, settings, labelled, print).run()


def equal(data: Any, out: Path, options: argparse.Namespace) -> dict[str, Any]:
    """16 labels against the same number of Fock builds without labels, both after the same 10 labels."""
    names = [f"w{k:03d}" for k in data["train"]]
    test = [f"w{k:03d}" for k in data["test"]]
    first, more = names[:SEED_LABELS], names[SEED_LABELS : SEED_LABELS + MORE_LABELS]
    base = trained(out, "base", first, test, options.minutes / 2)
    supervised = trained(
        out, "supervised", first + more, test, options.minutes, "training.learning_rate=2e-3", "--from", base
    )
    builds = int(sum(data["scf_cycles"][data["train"][SEED_LABELS : SEED_LABELS + MORE_LABELS]]))
    count = builds // options.rounds
    pool = data["train"][SEED_LABELS + MORE_LABELS :][:count]
    structures = [(f"u{k:03d}", Atoms(data["Z"], data["pos"][k])) for k in pool]
    settings = UnlabelledSettings(options.rounds, options.target, rehearsal=SEED_LABELS / count)
    folder = out / f"replay_{options.target}_{options.rounds}"
    result = learn(folder, base, structures, settings, options.minutes, out / "base.json")
    split = out / "base.json"
    rows = {name: error(model, out / "water.h5", split) for name, model in (("base", base), ("supervised", supervised))}
    rows["replay"] = error(result.checkpoint, out / "water.h5", split)
    targets = [folder / f"round_{k:02d}" / "targets.h5" for k in range(options.rounds)]
    return {
        "labels_first": SEED_LABELS, "labels_more": MORE_LABELS, "builds_of_labels": builds, "geometries": count,
        "rounds": options.rounds, "target": options.target, "builds": result.figures["fock_builds"],
        "coulomb_builds": result.figures["coulomb_builds"], "H_mae_uEh": rows,
        "ratio": rows["replay"] / rows["supervised"],
        "targets_mae_uEh": [target_error(path) for path in targets],
    }  # fmt: skip


def target_error(store: Path) -> float:
    """Mean |T - H of the SCF| of the targets of a round, micro-Hartree."""
    with Store(store) as targets, Store(store.parents[2] / "water.h5") as labels:
        return float(np.mean([
            np.abs(targets.read(name).hamiltonian.values - labels.read(f"w{name[-3:]}").hamiltonian.values).mean()
            for name in targets.names
        ])) * 1e6 / HARTREE  # fmt: skip


def stretched_waters(data: Any) -> list[tuple[str, Atoms]]:
    """Test geometries with both bonds 10 to 30 % longer."""
    factors = np.random.default_rng(0).uniform(1.1, 1.3, STRETCHED + HELD_OUT)
    result = []
    for k, factor in zip(data["test"], factors, strict=False):
        positions = data["pos"][k].copy()
        positions[1:] = positions[0] + factor * (positions[1:] - positions[0])
        result.append((f"s{k:03d}", Atoms(data["Z"], positions)))
    return result


def labels(path: Path, structures: list[tuple[str, Atoms]]) -> Path:
    """Store of converged SCF calculations, to compare with."""
    if path.exists():
        return path
    found = []
    for name, atoms in structures:
        builder = builder_of(atoms.numbers, atoms.positions)
        builder.mf.conv_tol = 1e-9
        builder.mf.kernel()
        fock = builder.blocks(builder.to_ours(builder.mf.get_fock()) * HARTREE)
        calculation = Calculation(
            builder.structure, builder.basis, builder.blocks(builder.overlap), fock, n_electrons=10.0,
            provenance=Provenance("pyscf", functional="pbe", grid="level 4"),
        )  # fmt: skip
        found.append((name, calculation))
    write_store(path, found)
    return path


def stretched(data: Any, out: Path, options: argparse.Namespace) -> dict[str, Any]:
    """One Fock build for each of 16 stretched waters: errors on them, on 8 others like them, on the old test part."""
    waters = stretched_waters(data)
    learnt, others = waters[:STRETCHED], waters[STRETCHED:]
    split = out / "split.json"
    stores = {"learnt": labels(out / "learnt.h5", learnt), "others": labels(out / "others.h5", others)}
    stores["old test"] = out / "water.h5"
    settings = UnlabelledSettings(1, options.target, rehearsal=options.rehearsal)
    folder = out / f"stretched_{options.target}"
    result = learn(folder, options.model, learnt, settings, options.minutes, split)
    rows = {
        name: [
            error(model, store, split if name == "old test" else None) for model in (options.model, result.checkpoint)
        ]
        for name, store in stores.items()
    }
    return {
        "target": options.target, "builds": result.figures["fock_builds"],
        "coulomb_builds": result.figures["coulomb_builds"], "H_mae_uEh_before_after": rows,
    }  # fmt: skip


def main() -> None:
    """Run one part, print one row."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", type=Path)
    parser.add_argument("part", choices=("free", "equal", "stretched"))
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--minutes", type=float, default=1.5)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--rehearsal", type=float, default=3.0)
    parser.add_argument("--target", choices=("relaxed", "mixed"), default="relaxed")
    parser.add_argument("--model", type=Path)
    options = parser.parse_args()
    out: Path = options.output
    out.mkdir(parents=True, exist_ok=True)
    if not (out / "water.h5").exists():
        make_store(options.source, out)
    part = {"free": free, "equal": equal, "stretched": stretched}[options.part]
    row = {"date": datetime.date.today().isoformat(), "machine": platform.platform(), "part": options.part}
    row |= {"minutes": options.minutes} | part(np.load(options.source), out, options)
    (out / f"{options.part}_{options.target}_{options.rounds}.json").write_text(json.dumps(row, indent=1) + "\n")
    print(json.dumps(row))


if __name__ == "__main__":
    main()
