"""What every command has in common: five options, one way to fail, and two streams.

Results go to standard output (with ``--json`` one JSON value and nothing else), notes and progress to
standard error. Exit codes: 0 done, 1 failed or done in part, 2 the command line or a setting is wrong.
"""

from __future__ import annotations

import inspect
import re
import sys
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from rich.console import Console

    from api.build import Longleaf
    from api.sections import Settings
    from pipeline.errors import LongleafError

DONE, FAILED, USAGE = 0, 1, 2
_PIPE_WIDTH = 160  # columns when nobody watches: wide enough that tables keep their text
_GLOBAL = "For every command"
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")


class Run:
    """One invocation: its settings, the Longleaf it opens when first needed, and where it prints."""

    def __init__(self, closing: ExitStack, flags: Mapping[str, Any], *, json: bool) -> None:
        self.json = json
        self.flags = dict(flags)
        self._closing = closing

    @cached_property
    def settings(self) -> Settings:
        """Gathered from every layer, the command line on top."""
        from api.settings import load_settings

        config = self.flags.pop("config", None)
        return load_settings(self.flags, config)

    @cached_property
    def longleaf(self) -> Longleaf:
        """Open until the command ends."""
        from api.build import open_longleaf

        return self._closing.enter_context(open_longleaf(self.settings, self.err.print))

    def require_data(self) -> None:
        """Raise NotFoundError where nothing is stored yet, rather than begin a folder that nobody wanted."""
        from api.stored import has_data
        from pipeline.errors import NotFoundError

        if not has_data(self.settings):
            raise NotFoundError(
                f"There is no data in {str(self.settings.data)!r}.",
                remedy="Check --data, or begin with: longleaf ingest FILE",
            )

    @cached_property
    def out(self) -> Console:
        """Standard output, for results."""
        return _console(stderr=False)

    @cached_property
    def err(self) -> Console:
        """Standard error, for notes and progress."""
        return _console(stderr=True)

    def emit(self, value: object) -> None:
        """The result as one JSON value. Only with ``--json``."""
        from api.plain import plain

        _write_json(plain(value))

    def note(self, text: str, style: str = "dim") -> None:
        """A line for whoever watches; nothing with ``--json``."""
        if not self.json:
            self.err.print(printable(text), style=style, soft_wrap=True)

    def fail(self, error: LongleafError) -> int:
        """Report an error and give the exit code."""
        from pipeline.errors import ConfigurationError, InvalidRequestError

        report_error(error.code, error.message, error.remedy, json=self.json)
        return USAGE if isinstance(error, ConfigurationError | InvalidRequestError) else FAILED


def report_error(code: str, message: str, remedy: str, *, json: bool) -> None:
    """One line and its remedy; with ``json`` an object on standard output instead."""
    if json:
        _write_json({"error": {"code": code, "message": message, "remedy": remedy}})
        return
    sys.stderr.write(printable(f"error: {message}") + "\n")
    if remedy:
        sys.stderr.write(printable(f"  fix: {remedy}") + "\n")


def _write_json(value: object) -> None:
    import json

    text = json.dumps(value, ensure_ascii=False, indent=2)
    sys.stdout.write(text.encode("utf-8", "replace").decode() + "\n")  # names of files may not be UTF-8


def printable(text: str) -> str:
    """Text without control characters, which could steer the terminal; line breaks and tabs stay."""
    return _CONTROL.sub("\N{REPLACEMENT CHARACTER}", text)


Body = Callable[..., int | None]


def command(app: typer.Typer, name: str, *, needs_data: bool = False) -> Callable[[Body], Body]:
    """Register a function as a command. Its first parameter is the :class:`Run`; the options that
    every command has are added after its own. One that ``needs_data`` fails where there is none."""

    def register(body: Body) -> Body:
        own = list(inspect.signature(body, eval_str=True).parameters.values())[1:]
        shared = list(inspect.signature(_shared, eval_str=True).parameters.values())

        def invoke(**options: Any) -> None:  # noqa: ANN401 - typer gives what each parameter says
            common = {parameter.name: options.pop(parameter.name) for parameter in shared}
            raise typer.Exit(_run(body, options, needs_data=needs_data, **common))

        parameters = [p.replace(kind=inspect.Parameter.KEYWORD_ONLY) for p in (*own, *shared)]
        invoke.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
        invoke.__annotations__ = {p.name: p.annotation for p in parameters}
        invoke.__doc__ = body.__doc__
        app.command(name, no_args_is_help=False)(invoke)
        return body

    return register


def _shared(
    data: Annotated[
        Path | None, typer.Option(help="Folder that holds everything stored.", rich_help_panel=_GLOBAL)
    ] = None,
    config: Annotated[
        Path | None, typer.Option(help="Settings file instead of ./longleaf.toml.", rich_help_panel=_GLOBAL)
    ] = None,
    set_: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="KEY=VALUE",
            help="Any setting, e.g. answer.max_quotes=1.",
            rich_help_panel=_GLOBAL,
        ),
    ] = None,
    json: Annotated[
        bool, typer.Option("--json", help="Print one JSON value, errors too.", rich_help_panel=_GLOBAL)
    ] = False,
    debug: Annotated[
        bool, typer.Option("--debug", help="Show the trace of an error.", rich_help_panel=_GLOBAL)
    ] = False,
) -> None:
    """The options of every command, in the order of the help page."""


def _run(
    body: Body,
    options: dict[str, Any],
    *,
    needs_data: bool,
    data: Path | None,
    config: Path | None,
    set_: list[str] | None,
    json: bool,
    debug: bool,
) -> int:
    from pipeline.errors import LongleafError

    try:
        with ExitStack() as closing:
            flags = {"data": data, "config": config, **_assignments(set_ or [])}
            run = Run(closing, flags, json=json)
            if needs_data:
                run.require_data()
            return body(run, **options) or DONE
    except LongleafError as error:
        if debug:
            raise
        return Run(ExitStack(), {}, json=json).fail(error)
    except (BrokenPipeError, KeyboardInterrupt, typer.Abort):
        raise
    except Exception as error:
        if debug:
            raise
        report_error(
            "internal", f"{type(error).__name__}: {error}", "Run again with --debug for the trace.", json=json
        )
        return FAILED


def _assignments(pairs: list[str]) -> dict[str, str]:
    from pipeline.errors import ConfigurationError

    settings = {}
    for pair in pairs:
        key, equals, value = pair.partition("=")
        if not equals:
            raise ConfigurationError(f"--set {pair!r} has no '='.", remedy="Write --set section.key=value.")
        settings[key.strip()] = value
    return settings


def _console(*, stderr: bool) -> Console:
    from rich.console import Console

    width = None if (sys.stderr if stderr else sys.stdout).isatty() else _PIPE_WIDTH
    return Console(stderr=stderr, highlight=False, markup=False, emoji=False, width=width)
