"""What every verb shares: one reporter for people and for machines, one way to fail."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Annotated, Any

import typer
from rich.console import Console

JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON object with the figures, nothing else.")]


class Reporter:
    """Says things to a person on the screen, or one JSON object to a machine.

    With `as_json` every line goes to standard error and `result` alone writes to standard output.
    """

    def __init__(self, as_json: bool) -> None:
        self.as_json = as_json
        self.console = Console(stderr=as_json, highlight=False, soft_wrap=True)

    def line(self, text: str) -> None:
        """One line for the person."""
        self.console.print(text, markup=False)

    def result(self, figures: Mapping[str, Any]) -> None:
        """The figures of the verb: one JSON object on standard output with `as_json`, else nothing."""
        if self.as_json:
            typer.echo(json.dumps(_plain(figures), allow_nan=False))


def _plain(value: Any) -> Any:
    """JSON-ready copy: arrays become lists, numbers that are not finite become null.

    NumPy's arrays and numbers are known by their `tolist`: importing NumPy would make every --help slower.
    """
    if isinstance(value, Mapping):
        return {str(key): _plain(entry) for key, entry in value.items()}
    if isinstance(value, (list, tuple, set)):
        return [_plain(entry) for entry in value]
    if hasattr(value, "tolist"):
        return _plain(value.tolist())
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value if isinstance(value, (str, int, float, bool, type(None))) else str(value)
