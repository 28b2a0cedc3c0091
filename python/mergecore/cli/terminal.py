"""What does a person see? Facts in two columns, tables, and a progress bar.

Results go to stdout; progress, notes and warnings to stderr. On a terminal progress is a bar; in a
pipe it is a plain line now and then.

Names of tensors, models and files, and what models and servers say, come from strangers. Whatever
they hold is shown, and never obeyed by the terminal: everything printed goes through here.
"""

from __future__ import annotations

import json
import shutil
import sys
import textwrap
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from mergecore.planning import Progress

_OBEYED = (*range(32), *range(127, 160), *range(0x202A, 0x202F), *range(0x2066, 0x206A))
"""Control characters, and those that turn the direction of writing around."""
_SHOWN = {code: f"\\x{code:02x}" if code < 256 else f"\\u{code:04x}" for code in _OBEYED}
_SHOWN[ord("\n")] = "\\n"
_SHOWN[ord("\t")] = "\\t"
_SHOWN_LINES = {code: text for code, text in _SHOWN.items() if chr(code) not in "\n\t"}
_SHOWN_JSON = {code: f"\\u{code:04x}" for code in _OBEYED if code >= 127}  # JSON escapes the rest

_PLAIN_INTERVAL = 10.0  # seconds between the lines of a pipe's progress


def plain(text: str) -> str:
    """A text in one line; what a terminal would obey is written out, like `\\x1b`."""
    return text.translate(_SHOWN)


def say(text: str = "", *, err: bool = False) -> None:
    """Prints lines of one's own, whatever names are in them."""
    click.echo(text.translate(_SHOWN_LINES), err=err)


def object_as_json(content: Mapping[str, Any] | Sequence[Any]) -> None:
    """Prints one JSON object."""
    click.echo(json.dumps(content, indent=2, ensure_ascii=False).translate(_SHOWN_JSON))


def facts(pairs: Iterable[tuple[str, object]]) -> None:
    """Prints names and values in two columns; a value that is None is left out."""
    rows = [(name, str(value)) for name, value in pairs if value is not None]
    gap = max((len(name) for name, _ in rows), default=0) + 2
    width = shutil.get_terminal_size().columns if sys.stdout.isatty() else 10**6
    for name, value in rows:
        # A terminal narrower than a name and a few letters is past helping; it wraps by itself.
        lines = textwrap.wrap(value, max(width - gap, 16), break_on_hyphens=False) or [""]
        click.echo(name.ljust(gap) + f"\n{' ' * gap}".join(map(plain, lines)))


def remarks(notes: Iterable[str], warnings: Iterable[str]) -> None:
    """Prints notes on stdout, as they belong to a result, and warnings on stderr."""
    for note in notes:
        click.echo(f"note: {plain(note)}")
    for warning in warnings:
        click.echo(f"warning: {plain(warning)}", err=True)


def table(columns: Sequence[str], rows: Iterable[Sequence[str]], numbers_from: int = 99) -> None:
    """Prints a table; columns from `numbers_from` on are set flush right."""
    from rich import box
    from rich.console import Console
    from rich.table import Table

    grid = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    has_numbers = numbers_from < len(columns)
    for index, column in enumerate(columns):
        is_number = index >= numbers_from
        # On a narrow terminal it is the words that give way: a number cut in two is another one.
        grid.add_column(
            plain(column),
            justify="right" if is_number else "left",
            overflow="fold",
            no_wrap=is_number if has_numbers else index == 0,
        )
    for row in rows:
        grid.add_row(*map(plain, row))
    # A pipe has no width; a table in it is as wide as it needs to be.
    width = None if sys.stdout.isatty() else 1000
    Console(width=width, highlight=False, markup=False, emoji=False).print(grid)


def bar(share: float, width: int = 24) -> str:
    """A bar of eighths of a letter; nothing for NaN."""
    if share != share:
        return ""
    eighths = round(share * width * 8)
    return "█" * (eighths // 8) + " ▏▎▍▌▋▊▉"[eighths % 8].strip()


def short_names(references: Sequence[str], most: int = 28) -> list[str]:
    """Names for tables: their last parts where these differ, and long ones without their middle."""
    last = [reference.rstrip("/").rpartition("/")[2] or reference for reference in references]
    names = last if len(set(last)) == len(set(references)) else list(references)
    cut = [n if len(n) <= most else f"{n[: most // 2 - 1]}…{n[-(most // 2) :]}" for n in names]
    return cut if len(set(cut)) == len(set(names)) else names


def size(count: float) -> str:
    """Bytes for a person, in powers of ten as disks are sold: `1.23 GB`."""
    for unit in ("B", "kB", "MB", "GB"):
        if abs(count) < 1000:
            return f"{count:.3g} {unit}"
        count /= 1000
    return f"{count:.3g} TB"


def plural(count: int | None, thing: str) -> str | None:
    """`1 file`, `2 files`; None for None."""
    return None if count is None else f"{count:,} {thing}{'s' if count != 1 else ''}"


def speed(report: Mapping[str, Any]) -> str:
    """How fast a merge moved its bytes, read and written together."""
    moved = report["bytes_read"] + report["bytes_written"]
    return f"{moved / 1e9 / max(report['seconds'], 1e-9):.2f} GB/s"


@contextmanager
def progress(what: str, *, shown: bool) -> Iterator[Progress | None]:
    """Shows how far a merge is: a bar on a terminal, plain lines in a pipe, or nothing."""
    if not shown:
        yield None
    elif sys.stderr.isatty():
        with _bar(what) as update:
            yield update
    else:
        yield _lines(what)


@contextmanager
def steps(what: str, total: int, *, shown: bool) -> Iterator[Callable[[], None]]:
    """Counts steps: a bar on a terminal, and nothing in a pipe, where the result comes soon."""
    if not (shown and sys.stderr.isatty()):
        yield lambda: None
        return
    from rich import progress as parts
    from rich.console import Console

    with parts.Progress(
        parts.TextColumn("{task.description}", markup=False),
        parts.BarColumn(),
        parts.TaskProgressColumn(),
        parts.TimeRemainingColumn(),
        console=Console(stderr=True),
        transient=True,
    ) as bar:
        task = bar.add_task(plain(what), total=total)
        yield lambda: bar.update(task, advance=1)


@contextmanager
def count(what: str, *, shown: bool) -> Iterator[Progress | None]:
    """Shows how many of all are done: a bar on a terminal, plain lines in a pipe, or nothing."""
    if not shown:
        yield None
        return
    if not sys.stderr.isatty():
        yield _counts(what)
        return
    from rich import progress as parts
    from rich.console import Console

    with parts.Progress(
        parts.TextColumn("{task.description}", markup=False),
        parts.BarColumn(),
        parts.MofNCompleteColumn(),
        parts.TimeRemainingColumn(compact=True),
        console=Console(stderr=True),
        transient=True,
    ) as bar:
        task = bar.add_task(plain(what), total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


@contextmanager
def _bar(what: str) -> Iterator[Progress]:
    from rich import progress as parts
    from rich.console import Console

    with parts.Progress(
        parts.TextColumn("{task.description}", markup=False),
        parts.BarColumn(),
        parts.DownloadColumn(),
        parts.TransferSpeedColumn(),
        parts.TimeRemainingColumn(compact=True),
        console=Console(stderr=True),
        transient=True,
    ) as bar:
        task = bar.add_task(plain(what), total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


def _lines(what: str) -> Progress:
    start = last = time.monotonic()

    def update(done: int, total: int) -> None:
        nonlocal last
        now = time.monotonic()
        if now - last >= _PLAIN_INTERVAL and total:
            last = now
            rate = done / (now - start)
            left = f", {(total - done) / rate:.0f} s left" if rate else ""
            of = f"{size(done)} of {size(total)}"
            say(f"{what}: {of} ({100 * done // total} %), {size(rate)}/s{left}", err=True)

    return update


def _counts(what: str) -> Progress:
    start = last = time.monotonic()

    def update(done: int, total: int) -> None:
        nonlocal last
        now = time.monotonic()
        if now - last >= _PLAIN_INTERVAL or done == total:
            last = now
            say(f"{what}: {done:,} of {total:,}, {now - start:.0f} s", err=True)

    return update
