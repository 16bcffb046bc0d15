"""Accuracy for the minutes spent: learning curve, mixed systems, body order, presets; one JSON row for each training.

    python benchmarks/accuracy.py DATA -o OUT [--rows learning,mixed,order,preset] [--minutes 5] [--json]

DATA is a folder of unpacked OpenMX outputs (graphene, bilayer). Minutes are processor time of one
thread. A training or an evaluation whose output is there is not run again; --plot draws the frontier and the curve.
`benchmarks/graphene.py` and `benchmarks/water.py` give the long rows.
"""

import argparse
import datetime
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

CONFIG = Path(__file__).parents[1] / "configs" / "graphene.yaml"
SETS = {
    "train3x3": "graphene/train3x3",
    "test3x3": "graphene/test3x3",
    "test4x4": "graphene/test4x4",
    "test6x6": "graphene/test6x6",
    "bilayer": "bilayer",
}
VALIDATION = 4
"""The last structures of a set are never learnt from."""


def hamnet(*arguments: object) -> dict[str, Any]:
    """Run one verb with --json and return its figures."""
    command = [sys.executable, "-c", "from hamnet.cli import main; main()", *map(str, arguments), "--json"]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    return dict(json.loads(done.stdout))


class Bench:
    """Stores, trainings and evaluations below one folder, each made once.

    Args:
        data: OpenMX folders.
        out: where everything goes.
        minutes: processor minutes of a training.
    """

    def __init__(self, data: Path, out: Path, minutes: float) -> None:
        self.data, self.out, self.minutes = data, out, minutes
        out.mkdir(parents=True, exist_ok=True)

    def store(self, name: str) -> Path:
        """Store of one set."""
        path = self.out / f"{name}.h5"
        if not path.exists():
            hamnet("preprocess", "openmx", self.data / SETS[name], "-o", path)
        return path

    def names(self, name: str) -> list[str]:
        """Names in a store."""
        from hamnet.data.store import Store

        with Store(self.store(name)) as store:
            return list(store.names)

    def train(self, run: str, stores: list[str], split: dict[str, list[str]], *overrides: str) -> Path:
        """Checkpoint of one training."""
        folder = self.out / f"{run}_{self.minutes:g}"
        if not (folder / "model.ckpt").exists():
            (self.out / f"{run}.split.json").write_text(json.dumps(split))
            paths = json.dumps([str(self.store(s)) for s in stores])
            hamnet(
                "train", CONFIG, f"data.store={paths}", f"data.split={self.out / f'{run}.split.json'}",
                f"training.output={folder}", f"training.max_minutes={self.minutes}", "training.clock=process",
                "training.threads=1", "training.validate_bands=0", *overrides,
            )  # fmt: skip
        return folder / "model.ckpt"

    def error(self, model: Path, name: str) -> float:
        """H MAE in meV on a whole set."""
        target = model.parent / f"evaluate_{name}.json"
        if not target.exists():
            target.write_text(json.dumps(hamnet("evaluate", model, self.store(name), "-o", model.parent / name)))
        return float(json.loads(target.read_text())["hamiltonian_mae_meV"])

    def validation(self, model: Path) -> float:
        """H MAE in meV on the validation part of a training."""
        metrics = json.loads((model.parent / "metrics.json").read_text())
        return float(metrics["figures"]["hamiltonian_mae_meV"])

    def validation_of(self, model: Path, names: list[str]) -> float:
        """The same over some of the structures."""
        rows = json.loads((model.parent / "metrics.json").read_text())["structures"]
        chosen = [float(row["hamiltonian_mae_meV"]) for row in rows if row["name"] in names]
        return sum(chosen) / len(chosen)


def split_of(names: list[str], count: int | None = None) -> dict[str, list[str]]:
    """The last few validate; the first `count` of the others teach."""
    return {"train": names[:-VALIDATION][:count], "validation": names[-VALIDATION:], "test": []}


def single(bench: Bench, run: str, *overrides: str, count: int | None = None) -> dict[str, Any]:
    """Train on 3x3 cells; errors on the tests."""
    model = bench.train(run, ["train3x3"], split_of(bench.names("train3x3"), count), *overrides)
    tests = {name: bench.error(model, name) for name in ("test3x3", "test4x4", "test6x6")}
    return {"run": run, "minutes": bench.minutes, "validation": bench.validation(model), **tests}


def learning(bench: Bench) -> list[dict[str, Any]]:
    """Error against the number of training structures, at equal time."""
    return [{"structures": n, **single(bench, f"learning_{n}", count=n)} for n in (6, 12, 24, 45)]


def order(bench: Bench) -> list[dict[str, Any]]:
    """Error against body order."""
    return [single(bench, f"order_{n}", f"network.body_order={n}") for n in (2, 3, 4)]


def preset(bench: Bench) -> list[dict[str, Any]]:
    """The frontier of error against cost."""
    return [single(bench, f"preset_{name}", f"network={{preset: {name}}}") for name in ("light", "medium", "large")]


def mixed(bench: Bench) -> list[dict[str, Any]]:
    """One model for graphene and bilayer against one for each: error on the validation part of each set."""
    sets = ["train3x3", "bilayer"]
    splits = {name: split_of(bench.names(name)) for name in sets}
    both = {part: [n for name in sets for n in splits[name][part]] for part in ("train", "validation", "test")}
    together = bench.train("both", sets, both)
    rows = []
    for name in sets:
        alone = bench.train(f"only_{name}", [name], splits[name])
        errors = [bench.validation_of(model, splits[name]["validation"]) for model in (alone, together)]
        rows.append({"set": name, "minutes": bench.minutes, "alone": errors[0], "together": errors[1]})
    return rows


ROWS = {"learning": learning, "order": order, "preset": preset, "mixed": mixed}


def main() -> None:
    """Run what is missing and print the rows."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--rows", default="learning,order,preset,mixed")
    parser.add_argument("--minutes", type=float, default=5)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    bench = Bench(options.data, options.output, options.minutes)
    for name in options.rows.split(","):
        for found in ROWS[name](bench):
            row = {"row": name, **found, "date": datetime.date.today().isoformat()}
            print(json.dumps(row) if options.json else row, flush=True)


if __name__ == "__main__":
    main()
