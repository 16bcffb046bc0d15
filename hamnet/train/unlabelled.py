"""Learning without labels: rounds of one Fock build per geometry, each followed by an ordinary training on the targets.

A round is a folder: `targets.h5` (see `hamnet.train.replay`), `split.json`, and the training's own files. So a run that
was killed goes on where it was: finished rounds stay, targets that are written stay, a training resumes its epoch.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from hamnet.config import Config, overridden
from hamnet.core.files import write_json
from hamnet.data.splits import Split
from hamnet.data.store import Store
from hamnet.errors import ConfigError
from hamnet.nn.checkpoint import load_checkpoint, save_checkpoint
from hamnet.nn.dataset import StoreCollection
from hamnet.predict.fock_check import MakeBuilder, method_of
from hamnet.predict.fock_log import FockLog, FockRow
from hamnet.predict.predictor import Predictor
from hamnet.train.evaluation import evaluate_calculations, readers
from hamnet.train.fitting import RESUME_ADVICE, replace_metadata
from hamnet.train.replay import KEEP, PREFIX, Replay, Target, references_of
from hamnet.train.run import make_split, train
from hamnet.train.unlabelled_start import begun_with, same_run
from hamnet_preprocess.pyscf_fock import FockBuilder, Method

ROUND_SEED = 7919
"""Seeds of the rounds of one run are apart by this prime."""
CONVERGED = 1e-6
"""eV; where the mean |F - H| of all geometries is below, nothing is left to learn."""
Line = Callable[[str], None]


@dataclass(frozen=True)
class UnlabelledSettings:
    """How to learn without labels.

    Args:
        rounds: Fock builds of each geometry.
        target: relaxed or mixed, see `hamnet.train.replay`.
        keep: part of the prediction in a mixed target; the rest is F.
        rehearsal: labelled calculations mixed into each round, per geometry; another draw in each round.

    Raises:
        ConfigError: a number outside its range.
    """

    rounds: int = 2
    target: Target = "relaxed"
    keep: float = KEEP
    rehearsal: float = 3.0

    def __post_init__(self) -> None:
        if self.rounds < 1 or not 0 <= self.keep < 1 or self.rehearsal < 0:
            raise ConfigError(
                f"rounds is {self.rounds}, keep {self.keep:g}, rehearsal {self.rehearsal:g}; expected 1 round or more, "
                "0 <= keep < 1 and a rehearsal of 0 or more"
            )


EPOCHS = 40
LEARNING_RATE = 2e-3
"""Of one round, unless the user says otherwise: the targets move little, so must the weights."""


def unlabelled_config(model: Path, output: Path, overrides: Sequence[str] = ()) -> tuple[Config, tuple[Path, ...]]:
    """Configuration of the training in each round, and the labelled stores to rehearse from.

    The network's sizes and the rest of the training section are those that the model was trained with.

    Args:
        model: checkpoint to start from.
        output: folder of the run.
        overrides: `section.key=value`; `data.store` names labelled calculations (with `data.split` or fractions).

    Raises:
        ConfigError: an unknown key or value, a file that is not there, or another network than the model's.
    """
    checkpoint = load_checkpoint(model)
    tree = checkpoint.config.model_dump(mode="json", exclude_none=True)
    tree["training"].pop("max_minutes", None)
    tree["training"].pop("early_stop_patience", None)
    tree["training"] |= {
        "epochs": EPOCHS, "learning_rate": LEARNING_RATE, "output": str(output), "progress": False,
        "validate_bands": 0, "kspace_weight": 0.0, "schedule": "cosine",
    }  # fmt: skip
    rehearses = any(override.partition("=")[0].strip() == "data.store" for override in overrides)
    if rehearses:
        tree["data"] = {}
    config = overridden(tree, list(overrides), "the model's configuration")
    if config.network != checkpoint.config.network:
        raise ConfigError("the network's sizes are the model's: leave the network section out")
    return config, config.data.store if rehearses else ()


@dataclass(frozen=True)
class UnlabelledResult:
    """What learning without labels leaves.

    Args:
        checkpoint: path of model.ckpt.
        figures: JSON-ready: builds, figures of each round, structures left out, errors on labelled test data before
            and after.
    """

    checkpoint: Path
    figures: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Unlabelled:
    """A run of rounds.

    Args:
        config: of the training in each round; `training.output` is the folder of the run. `data` is not looked at
            but for what stands in `labelled`.
        model: checkpoint to start from.
        structures: (name, atoms) without labels.
        settings: rounds and mixing.
        labelled: stores to rehearse from, read with the `data` section of `config`; none: no rehearsal.
        on_line: called with lines for a person.
        make_builder: Fock builder of a structure, a basis and a method.
    """

    config: Config
    model: Path
    structures: Sequence[tuple[str, Any]]
    settings: UnlabelledSettings = UnlabelledSettings()
    labelled: Sequence[Path] = ()
    on_line: Line = lambda line: None
    make_builder: MakeBuilder = FockBuilder

    @property
    def output(self) -> Path:
        """Folder of the run."""
        return self.config.training.output

    def run(self) -> UnlabelledResult:
        """Do what is not done yet, and write model.ckpt, report.json and fock.csv.

        Raises:
            ConfigError: two structures of one name, or a folder that holds another run.
            PhysicsError: a model with spin, or no structure that can be learnt from.
            KeyboardInterrupt: interrupted; the same command goes on.
        """
        method = self._prepare()
        log = FockLog(self.output / "fock.csv")
        split = self._labelled_split(method)
        before = self._test_errors(self.model, split)
        model, rounds = self.model, []
        for number in range(self.settings.rounds):
            last = number == self.settings.rounds - 1
            rows = self._targets(number, model, method, log)
            rounds.append(round_figures(rows))
            self.on_line(f"round {number}: {log.builds} Fock builds so far; " + _round_text(rounds[-1]))
            if rounds[-1]["fock_distance_meV"] < 1e3 * CONVERGED:
                self.on_line("H and F agree: nothing is left to learn")
                break
            model = self._train(number, model, split, last)
        return self._finish(model, log, rounds, split, before)

    def _prepare(self) -> Method:
        names = [name for name, _ in self.structures]
        if len(set(names)) != len(names):
            raise ConfigError("two unlabelled structures have one name: rename one of them")
        checkpoint = load_checkpoint(self.model)
        method = method_of(checkpoint)
        given = begun_with(self.config, checkpoint.sha256, method.text, self.structures, self.labelled)
        self.output.mkdir(parents=True, exist_ok=True)
        same_run(self.output, given | asdict(self.settings))
        self.on_line(
            f"{len(names)} structures x {self.settings.rounds} rounds: {len(names) * self.settings.rounds} Fock builds "
            f"({method.text}), those of H0 beside them where the model learnt H - H0"
        )
        return method

    def _folder(self, number: int) -> Path:
        return self.output / f"round_{number:02d}"

    def _targets(self, number: int, model: Path, method: Method, log: FockLog) -> list[FockRow]:
        """Targets of a round; returns its rows, one for each structure."""
        folder = self._folder(number)
        folder.mkdir(exist_ok=True)
        path = folder / "targets.h5"
        if not path.is_file():
            first = self._folder(0) / "targets.h5"
            references = references_of(first) if number else {}
            predictor = Predictor.load(model, self.config.training.device)
            tell = _Pace(self.on_line, (self.settings.rounds - number - 1) * len(self.structures))
            replay = Replay(method, self.settings.target, self.settings.keep, self.make_builder)
            replay.targets(predictor, self.structures, number, path, log, references, tell)
            for name, reason in log.failed().items():
                self.on_line(f"left out: {name}: {reason}")
        with Store(path) as store:
            kept = {name.removeprefix(PREFIX) for name in store.names}
        latest = {row.name: row for row in log.rows if row.round == number and not row.reason}
        return [row for name, row in latest.items() if name in kept]

    def _train(self, number: int, model: Path, labelled: Split | None, last: bool) -> Path:
        """Regression on the targets of a round; the path of its model."""
        folder = self._folder(number)
        finished = folder / "model.ckpt"
        if finished.is_file():
            return finished
        targets = folder / "targets.h5"
        with Store(targets) as store:
            names = tuple(store.names)
        rehearsed = self._rehearsed(number, len(names), labelled)
        test = labelled.test if labelled is not None and last else ()
        split_file = folder / "parts.json"
        Split(names + rehearsed, (), test).write(split_file)
        stores = (targets, *self.labelled) if rehearsed or test else (targets,)
        config = self.config.model_copy(update={
            "data": self.config.data.model_copy(update={"store": stores, "split": split_file}),
            "training": self.config.training.model_copy(
                update={"output": folder, "seed": self.config.training.seed + ROUND_SEED * number}
            ),
        })  # fmt: skip
        resume = (folder / "last.ckpt").is_file()
        tell = partial(_tell_training, self.on_line, number == 0)
        return train(config, resume, tell, source=None if resume else model).checkpoint

    def _labelled_split(self, method: Method) -> Split | None:
        if not self.labelled:
            return None
        path = self.output / "labelled_split.json"
        stores = StoreCollection(self.labelled)
        try:
            split = make_split(self.config, stores, path if path.is_file() else None)
            theirs = Method.of(stores.read(split.train[0]))
            if theirs != method:
                self.on_line(f"note: labels to rehearse were made with {theirs.text}; Fock builds are {method.text}")
        finally:
            stores.close()
        split.write(path)
        return split

    def _rehearsed(self, number: int, n_structures: int, labelled: Split | None) -> tuple[str, ...]:
        """Names of labelled calculations for one round: drawn anew each time, the same after a kill."""
        if labelled is None:
            return ()
        wanted = min(len(labelled.train), math.ceil(self.settings.rehearsal * n_structures))
        generator = np.random.default_rng((self.config.training.seed, number))
        return tuple(labelled.train[k] for k in sorted(generator.permutation(len(labelled.train))[:wanted]))

    def _test_errors(self, model: Path, labelled: Split | None) -> dict[str, Any] | None:
        """Errors on the test part of the labelled data; None where there is none."""
        if labelled is None or not labelled.test:
            return None
        path = self.output / f"test_{load_checkpoint(model).sha256[:16]}.json"
        if not path.is_file():
            stores = StoreCollection(self.labelled)
            try:
                result = evaluate_calculations(
                    load_checkpoint(model), readers(stores, labelled.test), self.config.training.device
                )
            finally:
                stores.close()
            write_json(path, result.figures)
        figures: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        return figures

    def _errors_after(self, model: Path, labelled: Split | None) -> dict[str, Any] | None:
        """As `_test_errors`; the training of the last round has worked them out already."""
        if labelled is None or not labelled.test or model.parent != self._folder(self.settings.rounds - 1):
            return self._test_errors(model, labelled)
        figures: dict[str, Any] = json.loads((model.parent / "metrics.json").read_text(encoding="utf-8"))["figures"]
        return figures

    def _finish(
        self,
        model: Path,
        log: FockLog,
        rounds: list[dict[str, Any]],
        labelled: Split | None,
        before: dict[str, Any] | None,
    ) -> UnlabelledResult:
        path = self.output / "model.ckpt"
        start, checkpoint = load_checkpoint(self.model), load_checkpoint(model)
        known = {
            "fock_builds": log.builds,
            "coulomb_builds": log.coulomb_builds,
            "unlabelled": len(self.structures) - len(log.failed()),
        }
        kept = {key: start.metadata.get(key, "") for key in ("code", "functional", "grid")}
        save_checkpoint(path, replace_metadata(checkpoint, checkpoint.metadata | kept | known))
        after = self._errors_after(model, labelled)
        figures = known | {
            "rounds": rounds, "left_out": log.failed(), "before": before, "after": after, "checkpoint": str(path),
        }  # fmt: skip
        write_json(self.output / "report.json", figures)
        if before is not None and after is not None:
            mae = "hamiltonian_mae_meV_raw"
            self.on_line(f"labelled test part: H MAE {before[mae]:.3f} meV before, {after[mae]:.3f} meV after")
        return UnlabelledResult(path, figures)


def round_figures(rows: Sequence[FockRow]) -> dict[str, Any]:
    """Means over the structures of a round: meV and eV as the keys say."""
    columns = ("commutator_eV", "energy_error_eV", "fock_distance_meV", "energy_eV")
    figures: dict[str, Any] = {key: float(np.mean([getattr(row, key) for row in rows])) for key in columns}
    return figures | {"structures": len(rows), "builds": sum(row.builds for row in rows)}


def _round_text(figures: dict[str, Any]) -> str:
    return f"mean |F - H| {figures['fock_distance_meV']:.3f} meV, commutator {figures['commutator_eV']:.2e} eV"


def _duration(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.0f} min"


def _tell_training(on_line: Line, talks: bool, line: str) -> None:
    """Lines of a round's training: all of the first round's; the advice of `hamnet train` does not hold here."""
    own = line.removesuffix(RESUME_ADVICE)
    if talks or own != line:
        on_line(own)


class _Pace:
    """Says how long a molecule took once one has succeeded, and then how far a round is.

    Args:
        on_line: called with lines for a person.
        later: checks in the rounds after this one.
    """

    def __init__(self, on_line: Line, later: int) -> None:
        self.on_line, self.later, self.told = on_line, later, False

    def __call__(self, done: int, left: int, row: FockRow) -> None:
        """A molecule is done; a later round needs no H0 again."""
        if not (self.told or row.reason):
            self.told = True
            total = row.seconds * (left + self.later / max(1, row.builds))
            builds = "one Fock build" if row.builds == 1 else f"{row.builds} Fock builds"
            self.on_line(f"{builds} took {row.seconds:.1f} s; those to come about {_duration(total)}, then training")
        elif done % max(1, (done + left) // 10) == 0:
            self.on_line(f"  {done} of {done + left}")
