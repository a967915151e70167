"""What the commands print: tables, JSON and progress, on a terminal or in a pipe."""

from __future__ import annotations

import importlib
import json
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from types import ModuleType
from typing import Any

Cell = object
"""Anything with a readable ``str``; ``None`` is an empty cell."""


class CommandError(Exception):
    """The command could not be carried out: one line on stderr, exit status 1."""


class UsageError(Exception):
    """What was asked for makes no sense: one line on stderr, exit status 2."""


def one_line(text: object) -> str:
    """Return `text` with every run of white space turned into one space."""
    return " ".join(str(text).split())


def require(module: str, extra: str, purpose: str) -> ModuleType:
    """Import an optional dependency, or say in one line which extra brings it."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise CommandError(
            f"{purpose} needs {module.partition('.')[0]}, which cannot be imported ({error}); "
            f'install it with: pip install "pyconv-ops[{extra}]"'
        ) from error


def print_json(value: object) -> None:
    """Print `value` as JSON; what JSON has no form for appears as its ``repr``."""
    print(json.dumps(value, indent=2, ensure_ascii=False, default=_jsonable))


def _jsonable(value: Any) -> object:
    try:
        return value.item()  # a NumPy scalar
    except (AttributeError, TypeError, ValueError):
        return repr(value)


def print_heading(text: str) -> None:
    """Print a line that starts a section."""
    if _rich_stdout():
        from rich.console import Console

        Console().print(f"\n{text}", style="bold", markup=False, highlight=False)
    else:
        print(f"\n{text}")


def print_table(
    columns: Sequence[str],
    rows: Sequence[Sequence[Cell]],
    *,
    right: Sequence[str] = (),
    styles: dict[int, str] | None = None,
) -> None:
    """Print a table: drawn on a terminal, aligned columns of plain text in a pipe.

    Parameters
    ----------
    columns : sequence of str
        The headings.
    rows : sequence of sequence
        The cells of each row, as many as there are headings.
    right : sequence of str, optional
        The headings of the columns to align on the right: numbers.
    styles : dict of int to str, optional
        Rich style by row number, used on a terminal only.
    """
    texts = [["" if cell is None else one_line(cell) for cell in row] for row in rows]
    if _rich_stdout():
        _print_rich(columns, texts, right, styles or {})
    else:
        _print_plain(columns, texts, right)


def _print_plain(
    columns: Sequence[str], rows: Sequence[Sequence[str]], right: Sequence[str]
) -> None:
    lines = [list(columns), *rows]
    widths = [max(len(line[i]) for line in lines) for i in range(len(columns))]
    for line in lines:
        cells = [
            cell.rjust(width) if column in right else cell.ljust(width)
            for cell, width, column in zip(line, widths, columns, strict=True)
        ]
        print("  ".join(cells).rstrip())


def _print_rich(
    columns: Sequence[str],
    rows: Sequence[Sequence[str]],
    right: Sequence[str],
    styles: dict[int, str],
) -> None:
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, header_style="bold")
    for i, column in enumerate(columns):
        table.add_column(
            column,
            justify="right" if column in right else "left",
            style="cyan" if i == 0 else None,
            no_wrap=column in right or i == 0,
            overflow="fold",
        )
    for number, row in enumerate(rows):
        # Text, not str: a summary such as "[beta]" is no markup.
        table.add_row(*map(Text, row), style=styles.get(number))
    Console().print(table)


def _rich_stdout() -> bool:
    """Whether stdout is a terminal that rich can draw on; without rich the text is plain."""
    return sys.stdout.isatty() and _have_rich()


def _have_rich() -> bool:
    """Whether rich can be imported; the first time it cannot, say how to get it."""
    global _hinted
    try:
        import rich  # noqa: F401
    except ImportError:
        if not _hinted:
            hint = 'pyconv: for tables and progress bars: pip install "pyconv-ops[cli]"'
            print(hint, file=sys.stderr)
            _hinted = True
        return False
    return True


_hinted = False


@contextmanager
def progress(total: int) -> Iterator[Callable[[str], None]]:
    """Show how far a long command is: a bar on stderr if that is a terminal, otherwise nothing.

    Parameters
    ----------
    total : int
        The number of steps.

    Yields
    ------
    callable
        To be called with the name of each step as it starts.
    """
    if not (sys.stderr.isatty() and _have_rich()):
        yield lambda step: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

    bar = Progress(
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.description}", markup=False),
        console=Console(stderr=True),
        transient=True,
    )
    with bar:
        task = bar.add_task("", total=total)
        started = 0

        def step(name: str) -> None:
            nonlocal started
            bar.update(task, description=name, completed=started)
            started += 1

        yield step
