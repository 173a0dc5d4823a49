"""The command `usdrl`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated

import typer

from .. import __version__
from . import data, demo, environment, hub, predict, search, show, train
from .needs import App

app = App(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="USDRL, the foundation model for skeleton-based human action understanding.",
)


def _print_version(wanted: bool) -> None:
    if wanted:
        print(f"usdrl {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", is_eager=True, callback=_print_version, help="Print the version and exit.")
    ] = False,
) -> None:
    """USDRL, the foundation model for skeleton-based human action understanding."""


# In the order of the help.
_COMMANDS: dict[str, Callable[..., None]] = {
    "predict": predict.predict,
    "embed": predict.embed,
    "count": predict.count,
    "render": show.render,
    "map": show.map_command,
    "index": search.index,
    "search": search.search,
    "duplicates": search.duplicates,
    "outliers": search.outliers,
    "finetune": train.finetune,
    "report": train.report,
    "pretrain": train.pretrain,
    "evaluate": train.evaluate,
    "benchmarks": hub.benchmarks,
    "recipes": hub.recipes,
    "card": hub.card,
    "convert": hub.convert,
    "install": hub.install,
    "export": hub.export,
    "prepare": data.prepare,
    "join": data.join,
    "inspect": data.inspect,
    "write": data.write,
    "check": data.check,
    "list": hub.list_command,
    "push": hub.push,
    "demo": demo.demo,
    "env": environment.env,
}
for _name, _command in _COMMANDS.items():
    app.command(_name)(_command)
