"""Replay targets: what a model is to learn next about structures that no SCF has seen.

For each geometry the network's own prediction H gives a density D(H), one Fock build gives F(D(H)), and the target is

    relaxed:  T = G,  G = F + J[D(G) - D(H)], the Coulomb part of F brought to self-consistency
    mixed:    T = keep H + (1 - keep) F, a damped step of the SCF

so that a round of regression is one step of the SCF, taken by all geometries together. At the fixed point H = F = G:
the prediction is self-consistent, and right in all orbitals, not in the occupied ones alone.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from hamnet.core.blocks import BlockMatrix
from hamnet.core.calculation import Calculation, Provenance
from hamnet.data.store import Store, StoreWriter
from hamnet.errors import PhysicsError
from hamnet.predict.fock_check import FockCheck, MakeBuilder
from hamnet.predict.fock_log import FockLog, FockRow, accounted_check
from hamnet.predict.predictor import Predictor
from hamnet_preprocess.pyscf_fock import FockBuilder, Method

KEEP = 0.4
"""Part of the prediction in a mixed target."""
Target = Literal["relaxed", "mixed"]
FLUSH_SECONDS = 10.0
"""A kill loses at most the builds of so many seconds."""
PREFIX = "replay/"
"""Names of targets start with this, so that they differ from those of labelled calculations."""
Line = Callable[[str], None]


@dataclass(frozen=True)
class Replay:
    """Makes the targets of one round.

    Args:
        method: functional, grid, charge.
        kind: relaxed or mixed.
        keep: part of the prediction in a mixed target.
        make_builder: Fock builder of a structure, a basis and a method.
    """

    method: Method
    kind: Target = "relaxed"
    keep: float = KEEP
    make_builder: MakeBuilder = FockBuilder

    def targets(
        self,
        predictor: Predictor,
        structures: Sequence[tuple[str, Any]],
        number: int,
        path: Path,
        log: FockLog,
        references: Mapping[str, BlockMatrix],
        on_build: Callable[[int, int, FockRow], None] = lambda done, left, row: None,
    ) -> None:
        """Write the store of targets of one round, from where an earlier start left it.

        Args:
            predictor: the model of this round.
            structures: (name, atoms); those that the log calls failed are left out.
            number: of the round.
            path: store to write.
            log: every build is entered here; a structure that fails is entered with its reason, and is not tried again.
            references: H0 of structures where it is known, by name.
            on_build: called after each structure with how many are done, how many are left, and its row.
        """
        left_out = log.failed()
        flushed = time.monotonic()
        with StoreWriter(path) as writer:
            done = set(writer.names)
            todo = [(n, atoms) for n, atoms in structures if PREFIX + n not in done and n not in left_out]
            for k, (name, atoms) in enumerate(todo, start=1):
                row, check = accounted_check(
                    predictor,
                    name,
                    atoms,
                    number,
                    self.method,
                    references.get(name),
                    self.make_builder,
                    self.kind == "relaxed",
                )
                if check is not None:
                    writer.add(PREFIX + name, self.target(check))
                if time.monotonic() - flushed > FLUSH_SECONDS:
                    writer.flush()
                    flushed = time.monotonic()
                log.add(row)
                on_build(k, len(todo) - k, row)
            if not writer.names:
                writer.discard()
                raise PhysicsError(f"no structure is left to learn from: {_reasons(log.failed())}")

    def target(self, check: FockCheck) -> Calculation:
        """The calculation to learn from: T, with S and H0 of the prediction."""
        predicted = check.calculation
        hamiltonian = predicted.hamiltonian
        if hamiltonian is None:
            raise PhysicsError("the prediction holds no Hamiltonian to mix with")
        if check.relaxed is not None:
            mixed, words = check.relaxed.on_pairs(hamiltonian.pairs), "one Fock build, its Coulomb part relaxed"
        else:
            fock = check.fock.on_pairs(hamiltonian.pairs)
            mixed = hamiltonian.with_values(self.keep * hamiltonian.values + (1 - self.keep) * fock.values)
            words = f"{self.keep:g} H + {1 - self.keep:g} F, one Fock build"
        source = replay_provenance(predicted.provenance, self.method, words)
        return replace(predicted, hamiltonian=mixed, energy=check.energy, converged=False, provenance=source)


def replay_provenance(predicted: Provenance, method: Method, words: str) -> Provenance:
    """What a target says of itself, in the words in which labels of the same method do."""
    fit = f", density fit {method.density_fit}" if method.density_fit else ""
    return replace(
        predicted,
        functional=method.xc,
        grid=f"level {method.grid_level}{fit}",
        convergence=words,
    )


def references_of(path: Path) -> dict[str, BlockMatrix]:
    """H0 of the structures of an earlier round, by name: it costs no further Fock build."""
    with Store(path) as store:
        known = ((name, store.read(name).reference_hamiltonian) for name in store.names)
        return {name.removeprefix(PREFIX): matrix for name, matrix in known if matrix is not None}


def _reasons(failed: Mapping[str, str]) -> str:
    some = [f"{name} ({reason})" for name, reason in list(failed.items())[:3]]
    return "; ".join(some) + ("; ..." if len(failed) > 3 else "")
