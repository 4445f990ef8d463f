"""The command line. Each family of commands is a file under ``api/commands``."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

import typer

from api.commands import (
    answering,
    calibrating,
    evaluating,
    ingesting,
    jobs,
    keeping,
    keys,
    kv,
    library,
    moving,
    safekeeping,
    serving,
)
from api.commands.frame import USAGE, report_error

_EXIT_CODES = "Exit codes: 0 done; 1 failed, or done in part; 2 the command line or a setting is wrong."

INTERRUPTED = 130  # as shells say it for SIGINT

_VALUES_OF_COMMON_OPTIONS = {"--data": 1, "--config": 1, "--set": 1, "--json": 0, "--debug": 0}


def build_app() -> typer.Typer:
    """The whole command tree."""
    app = typer.Typer(
        name="longleaf",
        help="Questions over long documents, answered with every statement tied to page and characters.",
        epilog=_EXIT_CODES,
        no_args_is_help=True,
        pretty_exceptions_enable=False,
        add_completion=False,
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    for family in (
        ingesting,
        jobs,
        answering,
        library,
        keeping,
        moving,
        safekeeping,
        keys,
        kv,
        serving,
        evaluating,
        calibrating,
    ):
        family.register(app)
    return app


def main(arguments: Sequence[str] | None = None) -> None:
    """Run one command and exit. Usage errors are told like every other error."""
    # Threads that wait for each other by spinning take the cores from those they wait for: on two busy
    # cores a token took 1.0 s instead of 0.2 s. The library reads this when torch is first imported.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    arguments = command_first(sys.argv[1:] if arguments is None else arguments)
    try:
        code = build_app()(arguments, prog_name="longleaf", standalone_mode=False)
    except _usage_error() as error:
        context = getattr(error, "ctx", None)
        path = context.command_path if context else "longleaf"
        if told := _told(error):  # empty after a help page that was shown for want of a command
            report_error("usage", told, f"{path} --help", json="--json" in arguments)
        code = USAGE
    except (KeyboardInterrupt, typer.Abort):
        code = INTERRUPTED
    except BrokenPipeError:
        # Whoever read the output has enough; keep the interpreter from failing at exit on flushing it.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = 0
    if code == INTERRUPTED:
        sys.stderr.write("stopped; what was finished before is kept\n")
    sys.exit(code)


def command_first(arguments: Sequence[str]) -> list[str]:
    """``longleaf --data DIR search X`` as ``longleaf search X --data DIR``: both ways are usual."""
    rest = list(arguments)
    leading: list[str] = []
    while rest and rest[0].split("=")[0] in _VALUES_OF_COMMON_OPTIONS:
        count = 1 + (_VALUES_OF_COMMON_OPTIONS[rest[0]] if "=" not in rest[0] else 0)
        leading += rest[:count]
        rest = rest[count:]
    end = rest.index("--") if "--" in rest else len(rest)  # after it all are arguments
    return [*rest[:end], *leading, *rest[end:]]


def _told(error: Exception) -> str:
    tell = getattr(error, "format_message", None)
    return str(tell()) if tell else str(error)


def _usage_error() -> type[Exception]:
    """The parent of ``typer.BadParameter``: typer carries its own copy of click in some versions."""
    kind: type[Exception] = typer.BadParameter.__mro__[1]
    return kind


if __name__ == "__main__":
    main()
