"""Keeping an installation well: ``doctor``, ``verify``, ``repair`` and ``version``."""

from __future__ import annotations

from typing import Annotated

import typer

from api.commands.frame import DONE, FAILED, Run, command

_MARKS = {"ok": ("ok", "green"), "note": ("--", "yellow"), "missing": ("!!", "bold red")}


def register(app: typer.Typer) -> None:
    """Add the family to the command tree."""
    command(app, "doctor")(doctor)
    command(app, "verify")(verify)
    command(app, "repair")(repair)
    command(app, "version")(version)


def doctor(
    run: Run,
    settings: Annotated[
        bool, typer.Option("--settings", help="List every setting with its value instead.")
    ] = False,
) -> int:
    """Check models, index, versions and disk, and say how to get what is missing.

    Example: longleaf doctor
    """
    if settings:
        return _settings(run)
    from api.doctor import examine

    checks = list(examine(run.longleaf))
    if run.json:
        run.emit({"checks": checks})
    else:
        for check in checks:
            mark, style = _MARKS[check.state]
            run.out.print(f"{mark}  {check.name}: ", style=style, end="", soft_wrap=True)
            run.out.print(check.detail, soft_wrap=True)
            if check.remedy:
                run.out.print(f"    fix: {check.remedy}", soft_wrap=True)
    return FAILED if any(check.state == "missing" for check in checks) else DONE


def verify(
    run: Run,
    collection: Annotated[str, typer.Option("--collection", "-c", help="Which collection.")] = "default",
) -> int:
    """Compare the index with the ledger and change nothing.

    Example: longleaf verify
    """
    return _reconcile(run, collection, repair=False)


def repair(
    run: Run,
    collection: Annotated[str, typer.Option("--collection", "-c", help="Which collection.")] = "default",
) -> int:
    """Rebuild what the index lacks from the ledger, and remove what it should not have.

    Example: longleaf repair
    """
    return _reconcile(run, collection, repair=True)


def version(run: Run) -> None:
    """Print the version.

    Example: longleaf version
    """
    from api.version import VERSION

    if run.json:
        run.emit({"version": VERSION})
    else:
        run.out.print(VERSION)
