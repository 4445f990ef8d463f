"""``longleaf jobs``: what waits to be ingested, what became of it, and working on it."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Annotated

import typer

from api.commands.frame import DONE, FAILED, Run, command
from pipeline.jobs import JobState

if TYPE_CHECKING:
    from pipeline.jobs import Job

_LOOK_SECONDS = 0.5
_PATIENCE_SECONDS = 3.0
_NOBODY = (
    "No worker has taken the job yet. If none is running, start one on the same data: longleaf serve, or "
    "longleaf jobs work"
)

JobId = Annotated[str, typer.Argument(metavar="ID", help="As listed.")]


def register(app: typer.Typer) -> None:
    """Add the family to the command tree."""
    jobs = typer.Typer(help="List, watch, cancel and work on ingestion jobs.", no_args_is_help=True)
    command(jobs, "list", needs_data=True)(list_jobs)
    command(jobs, "show", needs_data=True)(show)
    command(jobs, "cancel", needs_data=True)(cancel)
    command(jobs, "retry", needs_data=True)(retry)
    command(jobs, "wait", needs_data=True)(wait)
    command(jobs, "work")(work)
    app.add_typer(jobs, name="jobs")


def list_jobs(
    run: Run,
    state: Annotated[JobState | None, typer.Option(help="Only those in this state.")] = None,
    tenant: Annotated[str | None, typer.Option(help="Only those of this tenant.")] = None,
    limit: Annotated[int, typer.Option(min=1, help="Most jobs.")] = 50,
) -> None:
    """List jobs, newest first.

    Example: longleaf jobs list --state running
    """
    found = run.longleaf.job_queue.jobs(tenant, state=state, limit=limit)
    if run.json:
        run.emit({"jobs": found})
        return
    if not found:
        wanted = (" of this tenant" if tenant else "") + (" in this state" if state else "")
        run.note(f"No job{wanted}." if wanted else "No job. Make one with: longleaf ingest PATH --queue")
        return
    from api.commands.tables import table

    run.out.print(table([_row(job) for job in found]))


def show(run: Run, job_id: JobId) -> None:
    """Show a job and what became of each of its documents.

    Example: longleaf jobs show 0123456789abcdef0123456789abcdef
    """
    queue = run.longleaf.job_queue
    job = queue.get(job_id)
    documents = list(queue.documents(job_id, limit=10_000))
    if run.json:
        run.emit({"job": job, "documents": documents})
        return
    from api.commands.tables import table

    run.out.print(table([_row(job)]))
    if job.waiting:
        run.note(f"Waiting: {job.waiting}", "yellow")
    columns = ("document_id", "stage", "status", "version", "attempts", "pages", "tokens", "message")
    if documents:
        run.out.print(table([{name: getattr(each, name) for name in columns} for each in documents]))


def cancel(run: Run, job_id: JobId) -> None:
    """Stop a job. What is finished stays, nothing else becomes a document.

    Example: longleaf jobs cancel 0123456789abcdef0123456789abcdef
    """
    _told(run, run.longleaf.job_queue.cancel(job_id))


def retry(run: Run, job_id: JobId) -> None:
    """Try the quarantined documents of a job again.

    Example: longleaf jobs retry 0123456789abcdef0123456789abcdef
    """
    _told(run, run.longleaf.job_queue.retry(job_id))


def wait(run: Run, job_id: JobId) -> int:
    """Wait until a job has ended; exit code 1 unless all of it was done. Ctrl-C ends only the waiting.

    Example: longleaf jobs wait 0123456789abcdef0123456789abcdef
    """
    queue = run.longleaf.job_queue
    job = queue.get(job_id)
    patient_until = time.monotonic() + _PATIENCE_SECONDS
    told = ""
    try:
        while job.finished is None:
            idle = job.state == "queued" and time.monotonic() > patient_until
            trouble = f"Waiting: {job.waiting}" if job.waiting else _NOBODY if idle else ""
            if trouble not in ("", told):
                run.err.print(trouble, style="yellow", soft_wrap=True)  # with --json, too: it may never end
            told = trouble
            time.sleep(_LOOK_SECONDS)
            job = queue.get(job_id)
    except KeyboardInterrupt:
        _told(run, job)
        raise
    _told(run, job)
    return DONE if job.state == "done" else FAILED


def work(
    run: Run,
    drain: Annotated[bool, typer.Option("--drain", help="Stop once nothing waits any more.")] = False,
) -> None:
    """Work on jobs until stopped: for a process of its own beside `longleaf serve` with jobs.workers=0.

    Example: longleaf jobs work --drain
    """
    longleaf = run.longleaf
    longleaf.open_stores()
    if drain:
        batches = longleaf.worker.drain()
        run.note(f"Worked on {batches} batches.")
        if run.json:
            run.emit({"batches": batches})
        return
    if longleaf.settings.jobs.workers == 0:
        from pipeline.errors import ConfigurationError

        raise ConfigurationError("jobs.workers is 0.", remedy="Set --set jobs.workers=1 for this process.")
    longleaf.worker.start()
    run.note("Working on jobs; stop with Ctrl-C.", "bold")
    _until_stopped()


def _until_stopped() -> None:
    """Return on SIGINT or SIGTERM."""
    import signal
    import threading

    stop = threading.Event()
    for name in (signal.SIGINT, signal.SIGTERM):
        signal.signal(name, lambda *_: stop.set())
    stop.wait()


def _row(job: Job) -> dict[str, object]:
    return {
        "id": job.id,
        "state": job.state,
        "tenant": job.tenant,
        "collection": job.collection,
        "documents": f"{job.documents_done + job.documents_failed}/{job.documents_total}",
        "failed": job.documents_failed,
        "tokens": job.tokens,
        "left": "" if job.seconds_left is None or job.finished else f"{job.seconds_left:.0f} s",
        "created": f"{job.created:%Y-%m-%d %H:%M}",
    }


def _told(run: Run, job: Job) -> None:
    if run.json:
        run.emit({"job": job})
    else:
        run.note(
            f"Job {job.id} is {job.state}: {job.documents_done} of {job.documents_total} documents done."
        )
