"""`hamnet predict --memory` for files of structures: each tile by tile, all in one store."""

from __future__ import annotations

import math
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from hamnet.core.spin import Spin
from hamnet.data.store_writer import merge_stores
from hamnet.errors import HamnetError
from hamnet.predict.batch import OF_COLLINEAR, asks_for_spinors, named_frames
from hamnet.predict.ensemble import load_models, spread_path, write_spread
from hamnet.predict.tile_plan import OnEvent
from hamnet.predict.tiling import TiledSummary, check_place, predict_in_tiles


def predict_files_in_tiles(
    models: Sequence[Path],
    structures: Sequence[Path],
    output: Path,
    memory: int,
    *,
    overlap: Path | None = None,
    jobs: int = 1,
    device: str = "cpu",
    spinor: bool = False,
    on_event: OnEvent = lambda line: None,
) -> TiledSummary:
    """`predict_in_tiles` of every structure of the files, into one store.

    Of several structures each is kept in `OUTPUT.structures/` when it is done; all are put together at the end.

    Args:
        models: checkpoints, or the folder of a run or of an ensemble.
        structures: POSCAR, cif, xyz, extxyz.
        output, memory, overlap, jobs, device, on_event: as `predict_in_tiles`.
        spinor: H of a collinear model as spinors; so for all structures where a moment of one is tilted against z.

    Raises:
        FormatError: a file cannot be read.
        ConfigError, BasisError, PhysicsError: as `predict_in_tiles`; the message starts with the structure's name.
    """
    check_place(output)
    frames = named_frames(structures)
    predictor = load_models(models, device)
    spinor = predictor.checkpoint.spin is not Spin.SPINOR and (spinor or asks_for_spinors(predictor, frames))
    if spinor:
        on_event(f"note: {OF_COLLINEAR}")
    several, folder = len(frames) > 1, output.with_name(output.name + ".structures")
    if several:
        folder.mkdir(exist_ok=True)
    targets = [folder / f"{k:06d}.h5" for k in range(len(frames))] if several else [output]
    summaries = []
    for (name, atoms), target in zip(frames, targets, strict=True):
        try:
            summary = predict_in_tiles(
                models,
                name,
                atoms,
                target,
                memory,
                overlap=overlap,
                jobs=jobs,
                device=device,
                spinor=spinor,
                keep=several,
                on_event=on_event,
            )
        except HamnetError as error:
            raise type(error)(f"{name}: {error}") from error
        summaries.append(summary)
    whole = summaries[0]
    if several:
        merge_stores(targets, output)
        spread = None if whole.spread is None else _merged_spread(targets, output)
        shutil.rmtree(folder)
        whole = _together(summaries, [name for name, _ in frames], spread)
    return replace(whole, remarks=(OF_COLLINEAR, *whole.remarks)) if spinor else whole


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
