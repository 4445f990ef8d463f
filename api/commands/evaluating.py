"""``longleaf eval``: how good search and answers are on questions with known evidence."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from api.commands.frame import DONE, FAILED, Run, command

if TYPE_CHECKING:
    from pipeline.evaluation.report import Report

_CUTOFFS, _BUDGETS = "1,5,10", "500,1000,2000"


def register(app: typer.Typer) -> None:
    """Add the family to the command tree."""
    command(app, "eval")(evaluate)


def evaluate(
    run: Run,
    folder: Annotated[
        Path | None, typer.Argument(metavar="DIR", help="A set, or a folder of sets; see docs/evaluation.md.")
    ] = None,
    *,
    documents: Annotated[int | None, typer.Option(min=1, help="First so many documents of a set.")] = None,
    questions: Annotated[int | None, typer.Option(min=1, help="So many questions, evenly spread.")] = None,
    cutoffs: Annotated[str, typer.Option(help="Ranks to measure documents at.")] = _CUTOFFS,
    budgets: Annotated[str, typer.Option(help="Tokens to measure evidence at.")] = _BUDGETS,
    answers: Annotated[bool, typer.Option("--answers", help="Also answer every question.")] = False,
    seed: Annotated[int, typer.Option(help="Of the intervals.")] = 0,
    out: Annotated[Path | None, typer.Option(help="Write the report as JSON.")] = None,
    markdown: Annotated[Path | None, typer.Option(help="Write the report as Markdown.")] = None,
    html: Annotated[Path | None, typer.Option(help="Write the report as one page with plots.")] = None,
    compare: Annotated[
        tuple[Path, Path] | None,
        typer.Option(metavar="OLD.json NEW.json", help="Compare two reports instead."),
    ] = None,
    tolerance: Annotated[float, typer.Option(min=0, help="A loss that --compare forgives.")] = 0.005,
) -> int:
    """Measure search (and answers) on sets of questions whose evidence is known.

    What a set needs is ingested once and kept under the data folder. With --compare the exit code is 1
    if anything got worse by more than the tolerance and not by chance.

    Example: longleaf eval sets/contracts --out today.json
    """
    from api.evaluation import evaluate as evaluated
    from pipeline.errors import InvalidRequestError
    from pipeline.evaluation.dataset import find_sets, load_set
    from pipeline.evaluation.runner import Plan

    if compare is not None:
        return _compare(run, *compare, tolerance, seed)
    if folder is None:
        raise InvalidRequestError("No set is named.", remedy="longleaf eval DIR, or --compare OLD NEW.")
    plan = Plan(_numbers("cutoffs", cutoffs), _numbers("budgets", budgets), answers=answers)
    sets = [load_set(each).sample(documents, questions) for each in find_sets(folder)]
    with progress(run) as show:
        report = evaluated(run.settings, sets, plan, seed=seed, progress=show)
    _give(run, report, out, markdown, html)
    return DONE


def _give(run: Run, report: Report, out: Path | None, markdown: Path | None, html: Path | None) -> None:
    from pipeline.evaluation.report import written
    from pipeline.evaluation.tables import markdown as as_markdown

    if out:
        _write(out, json.dumps(written(report), ensure_ascii=False) + "\n")
    if markdown:
        _write(markdown, as_markdown(report))
    if html:
        from pipeline.evaluation.page import page

        _write(html, page(report))
    if run.json:
        run.emit(written(report))
    else:
        run.out.print(as_markdown(report), soft_wrap=True)


def _compare(run: Run, old: Path, new: Path, tolerance: float, seed: int) -> int:
    from pipeline.evaluation.compare import compare
    from pipeline.evaluation.tables import differences_table

    found = compare(_read(old), _read(new), seed=seed)
    regressions = [d for d in found if d.regressed(tolerance)]
    if run.json:
        run.emit({"differences": found, "regressions": regressions, "tolerance": tolerance})
    else:
        run.out.print(differences_table(found, tolerance), soft_wrap=True)
        run.note(f"{len(regressions)} of {len(found)} measures got worse by more than {tolerance}.")
    return FAILED if regressions else DONE


def _read(path: Path) -> Report:
    from pipeline.errors import InvalidRequestError
    from pipeline.evaluation.report import read_report

    try:
        value: Any = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InvalidRequestError(
            f"{str(path)!r} cannot be read: {error}.", remedy="Name a file that --out wrote."
        ) from error
    return read_report(value)


def _write(path: Path, text: str) -> None:
    from pipeline.originals import disk_errors

    with disk_errors(path.parent):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")


def _numbers(name: str, text: str) -> tuple[int, ...]:
    from pipeline.errors import InvalidRequestError

    try:
        return tuple(sorted({int(part) for part in text.split(",")}))
    except ValueError:
        raise InvalidRequestError(
            f"--{name} is {text!r}.", remedy="Write whole numbers with commas, such as 1,5,10."
        ) from None


@contextmanager
def progress(run: Run) -> Iterator[Callable[[str, int, int], None]]:
    """A bar on standard error while somebody watches it."""
    if run.json or not run.err.is_terminal:
        yield lambda stage, done, total: None
        return
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn
    from rich.progress import Progress as Bar

    columns = (TextColumn("{task.description:<40}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Bar(*columns, console=run.err, transient=True) as bar:
        task = bar.add_task("reading")
        yield lambda stage, done, total: bar.update(task, description=stage, completed=done, total=total)
