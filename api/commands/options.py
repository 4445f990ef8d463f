"""Options that several commands take, worded once."""

from __future__ import annotations

from typing import Annotated

import typer

Collection = Annotated[str, typer.Option("--collection", "-c", help="Which collection.")]
Tenant = Annotated[str, typer.Option(help="Whose documents; as of `longleaf keys create --tenant`.")]
TopK = Annotated[int, typer.Option("--top-k", "-k", help="Most passages.")]
Budget = Annotated[int | None, typer.Option("--budget", help="Most tokens of all passages together.")]
DocumentId = Annotated[str | None, typer.Option("--document", help="Search inside this document only.")]
Filter = Annotated[
    str | None,
    typer.Option(
        "--filter", metavar="JSON", help='Conditions on metadata, e.g. \'{"year": {"gte": 2020}}\'.'
    ),
]
