"""``longleaf eval``: how good search and answers are on questions with known evidence."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

import typer

from api.commands.frame import DONE, FAILED, Run, command

if TYPE_CHECKING:
    from pipeline.evaluation.report import Report

_CUTOFFS, _BUDGETS = "1,5,10", "500,1000,2000"


class _Files(NamedTuple):
    """Where results are written to."""

    out: Path | None
    markdown: Path | None
    html: Path | None


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
    ablate: Annotated[
        bool, typer.Option("--ablate", help="Also try one switch at a time against these settings.")
    ] = False,
    only: Annotated[
        list[str] | None,
        typer.Option(help="Switches to try: late, granularity, analyser, fusion, answer. Repeatable."),
    ] = None,
    generate: Annotated[
        Path | None,
        typer.Option(metavar="SET", help="Make a set of DIR's documents, write it here, and measure it."),
    ] = None,
    each: Annotated[int, typer.Option(min=1, help="Generated questions of a kind, a document.")] = 4,
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
    from api.evaluation import ablation
    from api.evaluation import evaluate as evaluated
    from api.plain import plain
    from pipeline.errors import InvalidRequestError
    from pipeline.evaluation import ablate as ablations
    from pipeline.evaluation import tables
    from pipeline.evaluation.dataset import find_sets, load_set
    from pipeline.evaluation.page import page
    from pipeline.evaluation.report import written
    from pipeline.evaluation.runner import Plan

    if compare is not None:
        return _compare(run, *compare, tolerance, seed)
    if folder is None:
        raise InvalidRequestError("No set is named.", remedy="longleaf eval DIR, or --compare OLD NEW.")
    if generate is not None:
        folder = _generate(run, folder, generate, each, seed)
    plan = Plan(_numbers("cutoffs", cutoffs), _numbers("budgets", budgets), answers=answers)
    sets = [load_set(each).sample(documents, questions) for each in find_sets(folder)]
    switches = ablations.chosen(only or [], answers=answers) if ablate or only else []
    with progress(run) as show:
        report = evaluated(run.settings, sets, plan, seed=seed, progress=show)
        found = ablation(run.settings, sets, plan, report, switches, seed=seed, progress=show)
    files, value = _Files(out, markdown, html), written(report)
    if switches:
        value = {**value, "ablation": plain(found)}
        _give(run, files, value, ablations.markdown(found), ablations.page(found, report.about))
    else:
        _give(run, files, value, tables.markdown(report), page(report))
    return DONE


def _give(run: Run, files: _Files, value: dict[str, Any], text: str, page: str) -> None:
    """Results to the files asked for, and to standard output."""
    if files.out:
        _write(files.out, json.dumps(value, ensure_ascii=False) + "\n")
    if files.markdown:
        _write(files.markdown, text)
    if files.html:
        _write(files.html, page)
    if run.json:
        run.emit(value)
    else:
        run.out.print(text, soft_wrap=True)


def _generate(run: Run, documents: Path, folder: Path, each: int, seed: int) -> Path:
    from api.question_sets import make_set

    made = make_set(
        [str(documents)], folder, each=each, seed=seed, limits=run.settings.reading, skipped=run.note
    )
    run.note(f"{len(made.questions)} questions of {len(made.documents)} documents are in {folder}.")
    return folder


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
