"""`hamnet predict --memory` for files of structures: each tile by tile, all in one store."""

from __future__ import annotations

import math
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from hamnet.core.spin import Spin
from hamnet.data.store_writer import merge_stores
from hamnet.errors import HamnetError
from hamnet.predict.batch import OF_COLLINEAR, asks_for_spinors, named_frames
from hamnet.predict.ensemble import load_models, spread_path, write_spread
from hamnet.predict.tile_plan import OnEvent
from hamnet.predict.tiling import TiledSummary, TileSettings, check_place, predict_in_tiles


def predict_files_in_tiles(
    models: Sequence[Path],
    structures: Sequence[Path],
    output: Path,
    settings: TileSettings,
    *,
    on_event: OnEvent = lambda line: None,
) -> TiledSummary:
    """`predict_in_tiles` of every structure of the files, into one store.

    Of several structures each is kept in `OUTPUT.structures/` when it is done; all are put together at the end.

    Args:
        models: checkpoints, or the folder of a run or of an ensemble.
        structures: POSCAR, cif, xyz, extxyz.
        output, settings, on_event: as `predict_in_tiles`; where a moment of one structure is tilted against z, a
            collinear model's H is spinors for all.

    Raises:
        FormatError: a file cannot be read.
        ConfigError, BasisError, PhysicsError: as `predict_in_tiles`; the message starts with the structure's name.
    """
    check_place(output)
    frames = named_frames(structures)
    predictor = load_models(models, settings.device)
    tilted = settings.spinor or asks_for_spinors(predictor, frames)
    settings = replace(settings, spinor=tilted and predictor.checkpoint.spin is not Spin.SPINOR)
    if settings.spinor:
        on_event(f"note: {OF_COLLINEAR}")
    if len(frames) == 1:
        whole = _one(models, *frames[0], output, settings, False, on_event)
    else:
        whole = _several(models, frames, output, settings, on_event)
    return replace(whole, remarks=(OF_COLLINEAR, *whole.remarks)) if settings.spinor else whole


def _one(
    models: Sequence[Path], name: str, atoms: Any, target: Path, settings: TileSettings, keep: bool, on_event: OnEvent
) -> TiledSummary:
    """One structure; an error says which."""
    try:
        return predict_in_tiles(models, name, atoms, target, settings, keep=keep, on_event=on_event)
    except HamnetError as error:
        raise type(error)(f"{name}: {error}") from error


def _several(
    models: Sequence[Path],
    frames: Sequence[tuple[str, Any]],
    output: Path,
    settings: TileSettings,
    on_event: OnEvent,
) -> TiledSummary:
    """Each structure into a store of its own, kept until all can be put together."""
    folder = output.with_name(output.name + ".structures")
    folder.mkdir(exist_ok=True)
    targets = [folder / f"{k:06d}.h5" for k in range(len(frames))]
    summaries = [
        _one(models, name, atoms, target, settings, True, on_event)
        for (name, atoms), target in zip(frames, targets, strict=True)
    ]
    merge_stores(targets, output)
    spread = None if summaries[0].spread is None else _merged_spread(targets, output)
    shutil.rmtree(folder)
    return _together(summaries, [name for name, _ in frames], spread)


def _merged_spread(targets: Sequence[Path], output: Path) -> Path:
    """One file of spreads from those of the structures."""
    spreads = {}
    for target in targets:
        with np.load(spread_path(target), allow_pickle=False) as file:
            spreads[str(file["names"][0])] = file["0/pairs"], file["0/spread"]
    write_spread(spread_path(output), spreads)
    return spread_path(output)


def _together(summaries: Sequence[TiledSummary], names: Sequence[str], spread: Path | None) -> TiledSummary:
    forecasts = [s.forecast_seconds for s in summaries]
    return TiledSummary(
        len(summaries),
        sum(s.seconds for s in summaries),
        sum(s.atoms for s in summaries),
        sum(s.pairs for s in summaries),
        sum(s.tiles for s in summaries),
        sum(s.tiles_done_before for s in summaries),
        math.nan if any(math.isnan(f) for f in forecasts) else sum(forecasts),
        max(s.forecast_memory_gb for s in summaries),
        max(s.peak_memory_gb for s in summaries),
        tuple(f"{name}: {remark}" for name, s in zip(names, summaries, strict=True) for remark in s.remarks),
        spread,
    )
