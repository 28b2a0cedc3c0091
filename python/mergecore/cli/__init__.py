"""The `mergecore` command: one file a command, imported when it is called.

This file knows the commands' names and turns whatever goes wrong into one line and an exit status:
0 done, 2 a wrong request, 1 a failure while running, 130 Ctrl-C.
"""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Sequence
from difflib import get_close_matches

import click

from mergecore.errors import MergecoreError

_COMMANDS = {
    "merge": "Merge models into a new one.",
    "run": "Run a recipe.",
    "extrapolate": "Go on from a model in the direction it came.",
    "extract-lora": "Write what a model changed as a LoRA adapter.",
    "methods": "Show the merge methods and their parameters.",
    "show": "Show what is in a model, or what a recipe would do.",
    "verify": "Check a merged model against its manifest.",
    "compare": "How do models lie to their base and to each other?",
    "mergeability": "Can these models be merged, and who spoils the group?",
    "select": "Choose the models that go best together.",
    "generate": "Let a model answer prompts.",
    "reward": "Score responses with a reward model.",
    "judge": "Say which responses are repetitive, code-switched or nonsense.",
    "tasks": "Test a model in benchmarks.",
    "evaluate": "Did the merge get better, or did it collapse? All of it, beside its parents.",
    "sweep": "Run many merges and evaluate each, in one table.",
    "study": "Rerun a paper's experiments.",
    "report": "Write what a sweep found as one page.",
    "demo": "Merge shipped models and test them: the idea in a minute.",
}


class _InterruptedError(Exception):
    """Ctrl-C, on its way past click."""


class _LazyGroup(click.Group):
    """A group that imports a command's file only to run it or to show its own help."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in _COMMANDS:
            return None
        name = cmd_name.replace("-", "_")
        command = getattr(importlib.import_module(f"mergecore.cli.{name}"), name)
        assert isinstance(command, click.Command)
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args and not args[0].startswith("-") and args[0] not in _COMMANDS:
            near = get_close_matches(args[0], _COMMANDS, n=1)
            hint = f'; did you mean "{near[0]}"?' if near else f" ({', '.join(_COMMANDS)})"
            raise click.UsageError(f'no command "{args[0]}"{hint}')
        return super().resolve_command(ctx, args)

    def invoke(self, ctx: click.Context) -> object:
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt as interrupt:
            raise _InterruptedError(*interrupt.args) from None  # click would print an empty line

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(list(_COMMANDS.items()))


def _version(ctx: click.Context, _option: click.Parameter, wanted: bool) -> None:
    if wanted:
        from mergecore._mergecore import __version__

        click.echo(f"mergecore {__version__}")
        ctx.exit()


@click.group(cls=_LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.option(
    "--version",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=_version,
    help="Show the version and exit.",
)
def commands() -> None:
    """Merge LLM checkpoints at disk speed in a few hundred megabytes of memory.

    `mergecore merge A B --method dare-ties` is a whole command; `mergecore demo` shows the idea.
    """


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command line and returns its exit status.

    Errors that say what is wrong with the request or the machine are one line on stderr. A bug is
    none of these, and keeps its traceback.
    """
    _mend_streams()
    try:
        status = commands.main(
            None if arguments is None else list(arguments),
            prog_name="mergecore",
            standalone_mode=False,
        )
        return _finish(status if isinstance(status, int) else 0)
    except click.exceptions.NoArgsIsHelpError as error:
        click.echo(error.format_message(), err=True)
        return 2
    except click.ClickException as error:
        return _fail(error.format_message(), error.exit_code)
    except (_InterruptedError, KeyboardInterrupt, click.Abort) as interrupt:
        return _fail(": ".join(["interrupted", *map(str, interrupt.args)]), 130)
    except BrokenPipeError:
        # The reader has gone (`| head`). Python would complain once more when it closes stdout.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except MergecoreError as error:
        return _fail(str(error), error.exit_status)
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        return _fail(f"{where}{error.strerror or error}", 1)


def _mend_streams() -> None:
    """A stream that was closed is silent, and one that cannot encode a letter says `?`."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115
        elif hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")


def _finish(status: int) -> int:
    """Writes out what is still to be printed; where that fails, the work itself is done."""
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        raise
    except OSError as error:
        # Python would try again when it closes stdout.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return _fail(f"the work is done, but standard output: {(error.strerror or '').lower()}", 1)
    return status


def _fail(message: str, status: int) -> int:
    from mergecore.cli.terminal import plain

    click.echo(f"error: {plain(' '.join(message.split()))}", err=True)
    return status
