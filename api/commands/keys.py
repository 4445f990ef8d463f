"""``longleaf keys``: who may use the service."""

from __future__ import annotations

from typing import Annotated

import typer

from api.commands.frame import Run, command


def register(app: typer.Typer) -> None:
    """Add the family to the command tree."""
    family = typer.Typer(help="Create, list and revoke the keys of the HTTP service.", no_args_is_help=True)
    command(family, "create")(create)
    command(family, "list")(list_keys)
    command(family, "revoke")(revoke)
    app.add_typer(family, name="keys")


def create(
    run: Run,
    name: Annotated[str, typer.Argument(help="Who will use it.")],
    tenant: Annotated[str, typer.Option(help="Whose documents it opens.")] = "default",
    collection: Annotated[
        list[str] | None,
        typer.Option("--collection", "-c", help="Only this collection, or those beginning so: `notes*`."),
    ] = None,
    access: Annotated[
        str, typer.Option(help="read (search and look), write (upload and delete too), operate (metrics).")
    ] = "write",
) -> None:
    """Make a key and show it once.

    Example: longleaf keys create "reporting job" --tenant acme --collection reports --access read
    """
    from api.keys import KeyRing

    scope = tuple(collection or ["*"])
    secret = KeyRing(run.settings.data).create(name, tenant=tenant, collections=scope, access=access)
    if run.json:
        run.emit({"name": name, "tenant": tenant, "collections": scope, "access": access, "key": secret})
        return
    run.note("Keep this key: it cannot be shown again. Send it as `Authorization: Bearer <key>`.")
    run.out.print(secret, soft_wrap=True)


def list_keys(run: Run) -> None:
    """List every key ever created, without its secret.

    Example: longleaf keys list
    """
    from api.commands.tables import table
    from api.keys import KeyRing

    keys = KeyRing(run.settings.data).keys()
    rows = [
        {
            "id": k.id,
            "name": k.name,
            "tenant": k.tenant,
            "collections": " ".join(k.collections),
            "access": k.access,
            "created": k.created,
            "revoked": k.revoked,
        }
        for k in keys
    ]
    if run.json:
        run.emit({"keys": rows})
    elif rows:
        run.out.print(table(rows))
    else:
        run.note("No key exists. On 127.0.0.1 the service serves its own machine without one.")


def revoke(run: Run, identity: Annotated[str, typer.Argument(metavar="ID", help="As listed.")]) -> None:
    """Make a key invalid from the next request on.

    Example: longleaf keys revoke 3f9c0a1b2c4d
    """
    from api.keys import KeyRing

    key = KeyRing(run.settings.data).revoke(identity)
    if run.json:
        run.emit({"id": key.id, "revoked": key.revoked})
    else:
        run.note(f"Key {key.id} ({key.name}) is revoked.")
