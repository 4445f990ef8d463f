"""``longleaf eval``: how good search and answers are on questions with known evidence."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

import typer

from api.commands.frame import DONE, FAILED, Run, command, report_error

if TYPE_CHECKING:
    from pipeline.evaluation.ablate import Switch
    from pipeline.evaluation.dataset import EvaluationSet
    from pipeline.evaluation.report import Report
    from pipeline.evaluation.runner import Plan

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
    questions: Annotated[
        int | None, typer.Option(min=1, help="So many of the questions that can be measured, spread.")
    ] = None,
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
    if anything got worse by more than the tolerance and not by chance, or if a set is gone.

    Example: longleaf eval sets/contracts --out today.json
    """
    from api.evaluation import ablation
    from api.evaluation import evaluate as evaluated
    from api.plain import plain
    from pipeline.errors import InvalidRequestError
    from pipeline.evaluation import ablate as ablations
    from pipeline.evaluation import tables
    from pipeline.evaluation.page import page
    from pipeline.evaluation.report import written

    if compare is not None:
        return _compare(run, *compare, tolerance, seed)
    if folder is None:
        raise InvalidRequestError("No set is named.", remedy="longleaf eval DIR, or --compare OLD NEW.")
    files, plan = _files(out, markdown, html), _plan(cutoffs, budgets, answers=answers)
    switches, left_out = _switches(run, only or [], plan) if ablate or only else ([], {})
    if generate is not None:
        folder = _generate(run, folder, generate, each, seed)
    sets = _sets(run, folder, documents, questions, plan)
    with progress(run) as show:
        report = evaluated(run.settings, sets, plan, seed=seed, progress=show)
        found, failed = ablation(run.settings, sets, plan, report, switches, seed=seed, progress=show)
    value = written(report)
    if not switches:
        return _give(run, files, value, tables.markdown(report), page(report))
    left_out = {**left_out, **failed}
    value = {**value, "ablation": plain(found), "left_out": left_out}
    text, shown = ablations.markdown(found, left_out), ablations.page(found, report.about, left_out)
    return max(_give(run, files, value, text, shown), FAILED if failed else DONE)


def _files(out: Path | None, markdown: Path | None, html: Path | None) -> _Files:
    """Raises InvalidRequestError for one that cannot be written, before there is anything to lose."""
    files = _Files(out, markdown, html)
    for option, path in files._asdict().items():
        if path is not None:
            _check_writable(option, path, path)
    return files


def _check_writable(option: str, given: Path, file: Path) -> None:
    from pipeline.errors import InvalidRequestError

    hindrance = _hindrance(file)
    if hindrance:
        raise InvalidRequestError(
            f"--{option} {str(given)!r} cannot be written: {hindrance}.",
            remedy=f"Name another place with --{option}.",
        )


def _hindrance(file: Path) -> str:
    """Why a file (and folders to it) cannot be written; nothing if it can, as far as one can tell."""
    try:
        if file.is_dir():
            return "it is a folder"
        there = next(path for path in (file, *file.absolute().parents) if path.exists())
        if there is not file and not there.is_dir():
            return f"{str(there)!r} is not a folder"
        return "" if os.access(there, os.W_OK) else f"{str(there)!r} may not be written to"
    except OSError as error:
        return str(error)


def _plan(cutoffs: str, budgets: str, *, answers: bool) -> Plan:
    """Rankings are as deep as the largest cutoff needs."""
    from pipeline.evaluation.runner import DEPTH, MOST_DEPTH, Plan

    ranks = _numbers("cutoffs", cutoffs)
    depth = min(max(DEPTH, *ranks), MOST_DEPTH)
    return Plan(ranks, _numbers("budgets", budgets), depth, answers=answers)


def _switches(run: Run, groups: list[str], plan: Plan) -> tuple[list[Switch], dict[str, str]]:
    """Those to try, and why others do not apply. Raises InvalidRequestError if none does."""
    from api.evaluation import applicable
    from pipeline.errors import InvalidRequestError
    from pipeline.evaluation.ablate import chosen

    kept, left_out = applicable(run.settings, chosen(groups, answers=plan.answers))
    told = [f"{name!r} does not apply: {why}" for name, why in left_out.items()]
    if not kept:
        raise InvalidRequestError("\n".join(told), remedy="Choose other switches with --only.")
    for line in told:
        run.note(line)
    return kept, left_out


def _sets(
    run: Run, folder: Path, documents: int | None, questions: int | None, plan: Plan
) -> list[EvaluationSet]:
    """What is measured. Raises InvalidRequestError for a set of which nothing can be."""
    from pipeline.errors import InvalidRequestError
    from pipeline.evaluation.dataset import find_sets, load_set

    sets = []
    for path in find_sets(folder):
        given = load_set(path).sample(documents, None)
        drawn = given.sample(None, questions, answers=plan.answers)
        count, there = len(drawn.measurable(answers=plan.answers)), len(given.questions)
        wanted = min(questions or there, there)
        more = "--answers asks more of them" if len(given.measurable(answers=True)) > count else ""
        if not count:
            usual = "Take more --documents" if documents else "Judge documents in qrels: relevance above 0"
            raise InvalidRequestError(
                f"{str(path)!r}: no question can be measured: none has a relevant document here.",
                remedy=f"{more or usual}; see docs/evaluation.md.",
            )
        if count < wanted:
            run.note(f"{given.name}: {count} of {wanted} questions can be measured{more and f'; {more}'}.")
        sets.append(drawn)
    return sets


def _give(run: Run, files: _Files, value: dict[str, Any], text: str, page: str) -> int:
    """Results to standard output, and to the files asked for even if nobody reads there any more."""
    try:
        if run.json:
            run.emit(value)
        else:
            run.out.print(text, soft_wrap=True)
    finally:
        written = _save(files, (json.dumps(value, ensure_ascii=False) + "\n", text, page))
    return DONE if written else FAILED


def _save(files: _Files, texts: tuple[str, str, str]) -> bool:
    """Whether every file asked for was written; those that were not are told on standard error."""
    from pipeline.errors import StorageError

    done = True
    for (option, path), text in zip(files._asdict().items(), texts, strict=True):
        try:
            if path is not None:
                _write(path, text)
        except StorageError as error:
            done = False
            report_error(error.code, error.message, f"Name another file with --{option}.", json=False)
    return done


def _generate(run: Run, documents: Path, folder: Path, each: int, seed: int) -> Path:
    from api.question_sets import make_set
    from pipeline.evaluation.saving import check_free

    check_free(folder)
    _check_writable("generate", folder, folder / "corpus.jsonl")
    made = make_set(
        [str(documents)], folder, each=each, seed=seed, limits=run.settings.reading, skipped=run.note
    )
    run.note(f"{len(made.questions)} questions of {len(made.documents)} documents are in {folder}.")
    return folder


def _compare(run: Run, old: Path, new: Path, tolerance: float, seed: int) -> int:
    from pipeline.evaluation.compare import compare, coverage
    from pipeline.evaluation.tables import differences_table

    before, after = _read(old), _read(new)
    found, sets = compare(before, after, seed=seed), coverage(before, after)
    regressions, lost = [d for d in found if d.regressed(tolerance)], [each.set for each in sets if each.lost]
    if run.json:
        value = {"differences": found, "regressions": regressions, "tolerance": tolerance}
        run.emit({**value, "sets": sets, "lost": lost})
    else:
        run.out.print(differences_table(found, tolerance), soft_wrap=True)
        for told in filter(None, map(str, sets)):
            run.note(told, style="yellow")
        run.note(f"{len(regressions)} of {len(found)} measures got worse by more than {tolerance}.")
    return FAILED if regressions or lost else DONE


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
