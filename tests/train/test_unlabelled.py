"""Learning without labels: accounting, resuming, fixed points, and bad geometries, on waters in a minimal basis."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import numpy as np
import pytest
import torch
from ase import Atoms
from hypothesis import given, settings
from hypothesis import strategies as st
from unlabelled_cases import WATER, labelled, water_model, waters

from hamnet.config import Config
from hamnet.core.spin import Spin
from hamnet.data.store import Store
from hamnet.errors import ConfigError, PhysicsError
from hamnet.nn.checkpoint import load_checkpoint
from hamnet.predict.coulomb_relaxation import pulay, relax_coulomb
from hamnet.predict.ensemble import model_file
from hamnet.predict.fock_check import fock_check, method_of
from hamnet.predict.fock_log import FockLog, FockRow
from hamnet.predict.predictor import Predictor
from hamnet.train.run import TrainResult, train
from hamnet.train.unlabelled import Unlabelled, UnlabelledResult, UnlabelledSettings, unlabelled_config
from hamnet_preprocess.pyscf_fock import FockBuilder, FockResult, Method, commutator, dense_of, density_of


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return water_model(tmp_path_factory.mktemp("water"))


def run(
    model: Path,
    output: Path,
    structures: list[tuple[str, Atoms]],
    rehearse: bool = False,
    changes: Sequence[str] = (),
    **options: Any,
) -> UnlabelledResult:
    """A run of two rounds, three epochs each."""
    given_settings = {"rounds": 2} | {k: v for k, v in options.items() if k in UnlabelledSettings.__annotations__}
    rest = {k: v for k, v in options.items() if k not in given_settings}
    store = model.parents[1] / "water.h5"
    fractions = ["data.train_fraction=0.5", "data.validation_fraction=0.25", "data.test_fraction=0.25"]
    overrides = ["training.epochs=3", *([f"data.store={store}", *fractions] if rehearse else []), *changes]
    config, stores = unlabelled_config(model, output, overrides)
    return Unlabelled(config, model, structures, UnlabelledSettings(**given_settings), stores, **rest).run()


def weights(path: Path) -> dict[str, torch.Tensor]:
    return dict(load_checkpoint(path).model.state_dict())


class SelfConsistent(FockBuilder):
    """A method for which every density is its own answer: F[D(H)] = H, as if the model were exact."""

    def __init__(self, model: Path, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.model = model

    def build(self, density: np.ndarray) -> FockResult:
        """The model's own H."""
        self.builds += 1
        predictor = Predictor.load(self.model)
        return FockResult(dense_of(predictor.predict(self.structure)), -2000.0)

    def coulomb(self, density: np.ndarray) -> np.ndarray:
        """Nothing responds."""
        self.coulomb_builds += 1
        return np.zeros_like(density)


def exact(model: Path) -> Callable[..., SelfConsistent]:
    return lambda *arguments: SelfConsistent(model, *arguments)


@pytest.mark.parametrize("target", ["relaxed", "mixed"])
def test_an_exact_model_is_left_as_it_is(model: Path, tmp_path: Path, target: str) -> None:
    result = run(model, tmp_path / "run", waters(2, 3), target=target, make_builder=exact(model))
    assert result.figures["fock_builds"] == 2  # one each, and no second round
    before, after = weights(model), weights(result.checkpoint)
    assert all(torch.equal(before[name], after[name]) for name in before)


@dataclass
class WholeRun:
    """A run of two rounds with old labels mixed in, not interrupted."""

    result: UnlabelledResult
    folder: Path
    made: list[FockBuilder]


@pytest.fixture(scope="module")
def whole(model: Path, tmp_path_factory: pytest.TempPathFactory) -> WholeRun:
    made: list[FockBuilder] = []

    def make(*arguments: Any) -> FockBuilder:
        made.append(FockBuilder(*arguments))
        return made[-1]

    folder = tmp_path_factory.mktemp("whole") / "run"
    return WholeRun(run(model, folder, waters(3, 3), rehearse=True, make_builder=make), folder, made)


def test_every_build_is_counted(whole: WholeRun) -> None:
    figures = whole.result.figures
    assert figures["fock_builds"] == sum(builder.builds for builder in whole.made) == 6
    assert figures["coulomb_builds"] == sum(builder.coulomb_builds for builder in whole.made) > 0
    assert FockLog(whole.folder / "fock.csv").builds == 6
    assert load_checkpoint(whole.result.checkpoint).metadata["fock_builds"] == 6
    assert [row["builds"] for row in figures["rounds"]] == [3, 3]


def test_the_reference_costs_a_build_once(tmp_path: Path) -> None:
    start = water_model(tmp_path, "reference", epochs=2)
    result = run(start, tmp_path / "run", waters(2, 3), target="mixed")
    assert result.figures["fock_builds"] == 2 * (1 + 2)
    assert result.figures["coulomb_builds"] == 0
    rounds = [Store(tmp_path / "run" / f"round_0{k}" / "targets.h5").read(0) for k in (0, 1)]
    known = [calculation.reference_hamiltonian for calculation in rounds]
    np.testing.assert_array_equal(known[0].values, known[1].values)


def test_mixed_targets_are_what_they_say(model: Path, tmp_path: Path) -> None:
    run(model, tmp_path / "run", waters(1, 3), target="mixed", keep=0.3, rounds=1)
    calculation = Store(tmp_path / "run" / "round_00" / "targets.h5").read("replay/m3/0")
    predictor = Predictor.load(model)
    check = fock_check(predictor, waters(1, 3)[0][1], method_of(predictor.checkpoint))
    expected = 0.3 * dense_of(check.calculation.hamiltonian) + 0.7 * dense_of(check.fock)
    np.testing.assert_allclose(dense_of(calculation.hamiltonian), expected, rtol=0, atol=1e-9)
    assert calculation.energy == pytest.approx(check.energy, abs=1e-9)
    assert not calculation.converged


def test_a_killed_run_goes_on_to_the_same_model(model: Path, tmp_path: Path, whole: WholeRun) -> None:
    """Killed among the builds of a round, and in its training."""
    structures = waters(3, 3)
    seen = 0

    def dying(*arguments: Any) -> FockBuilder:
        nonlocal seen
        seen += 1
        if seen == 5:
            raise KeyboardInterrupt
        return FockBuilder(*arguments)

    with pytest.raises(KeyboardInterrupt):
        run(model, tmp_path / "killed", structures, rehearse=True, make_builder=dying)
    folder = tmp_path / "killed" / "round_00"
    for left in ("model.ckpt", "best.ckpt"):
        (folder / left).unlink()
    again = run(model, tmp_path / "killed", structures, rehearse=True)
    one, two = weights(whole.result.checkpoint), weights(again.checkpoint)
    assert all(torch.equal(one[name], two[name]) for name in one)
    # what was lost with the open shard was built again, and both are in the account
    assert 6 <= again.figures["fock_builds"] <= 7
    assert whole.result.figures["after"]["hamiltonian_mae_meV"] == again.figures["after"]["hamiltonian_mae_meV"]


def test_bad_geometries_are_named_and_skipped(model: Path, tmp_path: Path) -> None:
    bad = [
        ("close", Atoms("OHH", 0.05 * WATER)),
        ("odd", Atoms("OH", WATER[:2])),
        ("nan", Atoms("OHH", WATER * np.nan)),
        ("unknown", Atoms("AuHH", WATER)),
        ("periodic", Atoms("OHH", WATER, cell=np.eye(3) * 5, pbc=True)),
    ]
    lines: list[str] = []
    result = run(model, tmp_path / "run", [*bad, *waters(1, 3)], rounds=1, on_line=lines.append)
    assert set(result.figures["left_out"]) == {name for name, _ in bad}
    assert result.figures["fock_builds"] == result.figures["unlabelled"] == 1
    assert all(any(line.startswith(f"left out: {name}") for line in lines) for name, _ in bad)
    with pytest.raises(PhysicsError, match="no structure is left"):
        run(model, tmp_path / "none", bad[:1], rounds=1)


def test_a_fock_build_that_breaks_is_named(model: Path, tmp_path: Path) -> None:
    class Broken(FockBuilder):
        """Fails inside the DFT code, after a build."""

        def build(self, density: np.ndarray) -> FockResult:
            """Breaks."""
            result = super().build(density)
            if self.structure.positions[0, 0] > 5:
                raise np.linalg.LinAlgError("nothing converges")
            return result if self.structure.positions[0, 0] < 3 else replace(result, energy=float("nan"))

    far = [("broken", Atoms("OHH", WATER + 6)), ("infinite", Atoms("OHH", WATER + 4))]
    result = run(model, tmp_path / "run", [*far, *waters(1, 3)], rounds=1, make_builder=Broken)
    assert "nothing converges" in result.figures["left_out"]["broken"]
    assert "not finite" in result.figures["left_out"]["infinite"]
    assert result.figures["fock_builds"] == 3  # a build that led to nothing is a build


def test_another_run_is_refused(model: Path, tmp_path: Path, whole: WholeRun) -> None:
    with pytest.raises(ConfigError, match="other rounds"):
        run(model, whole.folder, waters(3, 3), rehearse=True, rounds=3)
    with pytest.raises(ConfigError, match=r"other data \(some then, none now\): set"):
        run(model, whole.folder, waters(3, 3))
    with pytest.raises(ConfigError, match="one name"):
        run(model, tmp_path / "two", waters(1, 3) * 2)
    with pytest.raises(ConfigError, match="sizes are the model's"):
        unlabelled_config(model, tmp_path / "x", ["network.channels=9"])
    with pytest.raises(ConfigError, match="did you mean"):
        unlabelled_config(model, tmp_path / "x", ["training.epoch=9"])


def test_other_geometries_are_refused(model: Path, whole: WholeRun) -> None:
    """Names alone would give the old model back without a word."""
    moved = waters(3, 3)
    moved[1][1].positions[0, 0] += 1e-6
    with pytest.raises(ConfigError, match="other geometries of m3/1: set that back"):
        run(model, whole.folder, moved, rehearse=True)
    with pytest.raises(ConfigError, match=r"other structures \(3 then, 2 now; m3/2 only in one"):
        run(model, whole.folder, waters(2, 3), rehearse=True)


def test_a_corrected_molecule_is_not_answered_with_the_old_failure(model: Path, tmp_path: Path) -> None:
    with pytest.raises(PhysicsError, match="no structure is left"):
        run(model, tmp_path / "run", [("one", Atoms("OHH", 0.05 * WATER))], rounds=1)
    with pytest.raises(ConfigError, match="other geometries of one"):
        run(model, tmp_path / "run", [("one", Atoms("OHH", WATER))], rounds=1)


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("training.epochs=2", r"training\.epochs \(3 then, 2 now\)"),
        ("training.learning_rate=1e-5", r"training\.learning_rate \(0\.002 then, 1e-05 now\)"),
        ("data.train_fraction=0.25", r"data\.train_fraction"),
        ("data.split=SPLIT", r"data\.split \(null then, .sha256 "),
        ("data.store=OTHER", r"data\.store \(\[.water\.h5, .* then, \[.other\.h5, "),
    ],
)
def test_other_settings_are_refused(model: Path, whole: WholeRun, tmp_path: Path, override: str, expected: str) -> None:
    """Also before Lightning refuses to go on to fewer epochs than are done."""
    shutil.copy(model.parents[1] / "water.h5", tmp_path / "other.h5")
    shutil.copy(whole.folder / "labelled_split.json", tmp_path / "split.json")
    override = override.replace("OTHER", str(tmp_path / "other.h5")).replace("SPLIT", str(tmp_path / "split.json"))
    with pytest.raises(ConfigError, match=expected):
        run(model, whole.folder, waters(3, 3), rehearse=True, changes=[override])


def test_what_leaves_the_result_alone_may_change(model: Path, whole: WholeRun) -> None:
    again = run(
        model, whole.folder, waters(3, 3), rehearse=True, changes=["training.workers=1", "training.log_every=3"]
    )
    assert again.figures["fock_builds"] == whole.result.figures["fock_builds"]


def test_a_folder_with_a_model_of_something_else_is_refused(model: Path) -> None:
    before = model.read_bytes()
    with pytest.raises(ConfigError, match="would be written over"):
        run(model, model.parent, waters(1, 3))
    assert model.read_bytes() == before
    assert not (model.parent / "start.json").exists()


def test_models_with_spin_are_refused(model: Path) -> None:
    with pytest.raises(PhysicsError, match="closed shells"):
        method_of(replace(load_checkpoint(model), spin=Spin.COLLINEAR))


@pytest.mark.parametrize("wrong", [{"rounds": 0}, {"keep": 1.0}, {"rehearsal": -1.0}])
def test_settings_are_checked(wrong: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="expected 1 round"):
        UnlabelledSettings(**wrong)


@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 1000), size=st.floats(0.01, 1.0))
def test_relaxation_keeps_the_scf_state_and_solves_its_equation(seed: int, size: float) -> None:
    calculation = labelled(waters(1)[0][1])
    builder = FockBuilder(calculation.structure, calculation.basis, Method("hf"))
    truth = dense_of(calculation.hamiltonian)
    at_home = density_of(truth, builder.overlap, 10)
    # at the SCF's own density nothing is left to relax: F comes back, to the SCF's convergence
    np.testing.assert_allclose(relax_coulomb(builder, truth, at_home), truth, rtol=0, atol=1e-3)
    noise = np.random.default_rng(seed).normal(scale=size, size=truth.shape)
    density = density_of(truth + noise + noise.T, builder.overlap, 10)
    fock = builder.build(density).fock
    relaxed = relax_coulomb(builder, fock, density)
    own = density_of(relaxed, builder.overlap, 10)
    again = fock + builder.coulomb(own - density)
    # the commutator falls a hundredfold in the equation; once more through D(F) it grows again by the response, about 2
    left = commutator(again, own, builder.overlap)
    assert left <= 0.2 * commutator(fock, density, builder.overlap) + 1e-6


@settings(max_examples=20, deadline=None)
@given(count=st.integers(1, 4), seed=st.integers(0, 2**31))
def test_pulay_finds_the_zero_of_a_linear_residual(count: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    points = [rng.normal(size=(1, count)) for _ in range(count + 1)]
    target = rng.normal(size=(1, count))
    mixed = pulay(points, [point - target for point in points])
    # n + 1 points span n dimensions; random ones may be nearly dependent
    np.testing.assert_allclose(mixed, target, rtol=0, atol=1e-4)


def test_the_account_survives_a_torn_line(tmp_path: Path) -> None:
    path = tmp_path / "fock.csv"
    log = FockLog(path)
    row = FockRow(0, 'with "quotes", and commas', 2, -1.5, 0.1, 0.01, 3.0, 0.5, 7, "a reason, with a comma")
    log.add(row)
    with path.open("a") as file:
        file.write("0,torn,1,")
    again = FockLog(path)
    assert again.rows == [row]
    assert (again.builds, again.coulomb_builds) == (2, 7)
    assert again.failed() == {row.name: row.reason}


class Interrupt(pl.Callback):
    """Ctrl-C after the first epoch."""

    def on_train_epoch_end(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        """Interrupts."""
        raise KeyboardInterrupt


@pytest.mark.parametrize("number", [0, 1])
def test_an_interrupted_training_gives_no_advice_that_finetune_lacks(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    def interrupted(config: Config, *arguments: Any, **named: Any) -> TrainResult:
        callbacks = [Interrupt()] if config.training.output.name == f"round_0{number}" else []
        return train(config, *arguments, callbacks=callbacks, **named)

    monkeypatch.setattr("hamnet.train.unlabelled.train", interrupted)
    lines: list[str] = []
    with pytest.raises(KeyboardInterrupt):
        run(model, tmp_path / "run", waters(2, 3), on_line=lines.append)
    assert lines[-1].startswith("interrupted after ")
    assert lines[-1].endswith(f"round_0{number}/last.ckpt is kept")
    with pytest.raises(ConfigError, match=r"training\.epochs \(3 then, 1 now\)"):
        run(model, tmp_path / "run", waters(2, 3), changes=["training.epochs=1"])


def test_the_time_of_one_is_told_after_the_first_that_succeeds(model: Path, tmp_path: Path) -> None:
    lines: list[str] = []
    bad = ("gold", Atoms("Au", [[0, 0, 0]]))
    run(model, tmp_path / "run", [bad, *waters(2, 3)], rounds=1, target="mixed", on_line=lines.append)
    (told,) = [k for k, line in enumerate(lines) if line.startswith("one Fock build took ")]
    assert not any(line.startswith("  1 of") for line in lines[told:])
    assert lines[told - 1] == "  1 of 3"  # the one that failed


def test_a_run_folder_stands_for_its_model(model: Path, tmp_path: Path) -> None:
    assert model_file(model.parent) == model_file(model) == model
    for k in range(2):
        (tmp_path / str(k)).mkdir()
        shutil.copy(model, tmp_path / str(k) / "model.ckpt")
    with pytest.raises(ConfigError, match=r"holds 2 models .* name one, as .*0/model\.ckpt"):
        model_file(tmp_path)


def test_verb(model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    import ase.io

    from hamnet.cli import app

    ase.io.write(tmp_path / "new.extxyz", [atoms for _, atoms in waters(2, 3)])
    store = shutil.copy(model.parents[1] / "water.h5", tmp_path / "old.h5")
    arguments = [
        "finetune",
        model.parent,
        "--unlabelled",
        tmp_path / "new.extxyz",
        "-o",
        tmp_path / "run",
        "--rounds",
        "1",
    ]
    arguments += [f"data.store={store}", "data.test_fraction=0.25", "data.train_fraction=0.5", "training.epochs=2"]
    app(list(map(str, [*arguments, "--json"])), standalone_mode=False)
    figures = json.loads(capsys.readouterr().out)
    assert figures["fock_builds"] == 2
    assert figures["before"]["structures"] == figures["after"]["structures"] == 1
    assert Path(figures["checkpoint"]).is_file()
