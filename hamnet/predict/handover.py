"""One Fock build handed to a PySCF object, and the count of its builds: for that very object, not for its copies.

PySCF copies objects together with what is set on them (`density_fit`, `to_uks`, `as_scanner`, `copy`). So nothing is
put in the place of `get_veff` on the object. Its class gets a mixin, as PySCF's own extensions do, whose `get_veff`
asks whether `self` is still the object that the build was made for, in the state that it was made in.
"""

from __future__ import annotations

import re
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np

KEPT = "_hamnet_watch"
"""Attribute that a watched object has; it goes along to copies, where it means nothing."""
NOT_IN_F = re.compile(
    r"verbose|stdout|max_memory|max_cycle|init_guess|sap_basis|DIIS|diis\w*|damp|level_shift|conv_\w+|callback|_?chkfile|"
    r"mo_\w+|e_tot|converged|cycles|scf_summary|_opt|_t0|_w0"
)
"""Attributes of a PySCF object that do not enter its Fock matrix; a change of any other drops the build."""


@dataclass(eq=False)
class _Watch:
    """What is kept for one object.

    Args:
        owner: weak, so that no cycle keeps PySCF's temporary files open.
        builds: Fock builds made while counting.
        counting: whether they are counted.
        known: a build that is there already.
    """

    owner: weakref.ref[Any]
    builds: int = 0
    counting: bool = False
    known: _Known | None = None


@dataclass(frozen=True, eq=False)
class _Known:
    """get_veff of a density and the state of the object that it belongs to."""

    density: Any
    potential: Any
    state: dict[str, Any]

    def is_for(self, mf: Any, mol: Any, density: Any) -> bool:
        """Whether `mf.get_veff(mol, density)` would give the same; without a density it takes that of the orbitals."""
        if density is None:
            density = None if mf.mo_coeff is None else mf.make_rdm1()
        if density is None or not np.array_equal(np.asarray(density), np.asarray(self.density)):
            return False
        now = _state(mf)
        if now["_eri"] is None:  # integrals are made again from the molecule
            now["_eri"] = self.state["_eri"]
        same = now.keys() == self.state.keys() and all(_equal(now[key], self.state[key]) for key in now)
        return same and (mol is None or mol is mf.mol)


class _Watched:
    """Mixin in front of a PySCF class."""

    __name_mixin__ = ""  # the class keeps its name

    def get_veff(self, mol: Any = None, dm: Any = None, *arguments: Any, **options: Any) -> Any:
        """PySCF's get_veff, once from memory; counted where it is built."""
        watch: _Watch | None = vars(self).get(KEPT)
        plain: Callable[..., Any] = super().get_veff  # type: ignore[misc]  # of the PySCF class behind the mixin
        if watch is None or watch.owner() is not self:
            return plain(mol, dm, *arguments, **options)
        known, watch.known = watch.known, None
        fits = known is not None and known.is_for(self, mol, dm)
        _release(self)
        if known is not None and fits:
            return known.potential
        watch.builds += 1
        return plain(mol, dm, *arguments, **options)

    def __reduce__(self) -> Any:
        """A pickle or deep copy is plain PySCF."""
        from pyscf import lib

        plain = lib.view(self, lib.drop_class(type(self), _Watched))
        vars(plain).pop(KEPT, None)
        return _itself, (plain,)


def _itself(mf: Any) -> Any:
    """For pickle, which calls a function with the plain object."""
    return mf


def hand_over(mf: Any, density: Any, potential: Any) -> None:
    """Let `mf` use `potential` as the get_veff of `density`, if that is the first one it asks for.

    Copies of `mf`, and `mf` after a change of its molecule, functional or grid, build their own.
    """
    watch = _watch(mf)
    watch.known = _Known(density, potential, _state(mf))


@contextmanager
def counted_builds(mf: Any) -> Iterator[Callable[[], int]]:
    """Inside, the function given tells how often `mf` has built a Fock matrix; one handed over is none."""
    watch = _watch(mf)
    watch.counting, watch.builds = True, 0
    try:
        yield lambda: watch.builds
    finally:
        watch.counting = False
        _release(mf)


def _watch(mf: Any) -> _Watch:
    from pyscf import lib

    watch: _Watch | None = vars(mf).get(KEPT)
    if watch is None or watch.owner() is not mf:
        watch = _Watch(weakref.ref(mf))
        setattr(mf, KEPT, watch)
    if not isinstance(mf, _Watched):
        lib.set_class(mf, (_Watched, type(mf)))
    return watch


def _release(mf: Any) -> None:
    """Give the object its own class back when nothing is left to watch."""
    watch: _Watch = vars(mf)[KEPT]
    if watch.counting or watch.known is not None:
        return
    vars(mf).pop(KEPT)
    bases = type(mf).__bases__
    if bases[0] is _Watched:
        mf.__class__ = bases[1]


def _state(mf: Any) -> dict[str, Any]:
    """What decides F: the class, the coordinates, the attributes and those of the objects among them (grids, say)."""
    found: dict[str, Any] = {"class": type(mf), "coordinates": mf.mol.atom_coords().tobytes(), "_eri": None}
    for name, value in vars(mf).items():
        if NOT_IN_F.fullmatch(name) or name == KEPT:
            continue
        found[name] = value
        for inner, part in getattr(value, "__dict__", {}).items():
            found[f"{name}.{inner}"] = part
    return found


def _equal(one: Any, other: Any) -> bool:
    return one is other or (isinstance(one, (str, bytes, int, float)) and bool(one == other))
