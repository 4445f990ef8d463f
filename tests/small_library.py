"""An installation without model weights: the hashing embedder, the exact index, quotations only."""

from __future__ import annotations

from pathlib import Path

from starlette.testclient import TestClient

from api.app import create_app
from api.sections import LanguageModelSettings, PluginChoice, ServerSettings, Settings

# The same for commands.
SMALL = ["--set", "embedder.name=hashing", "--set", "indexer.name=exact", "--set", "language_model.spec=none"]

LEASE = (
    "The tenant of the mill pays forty pounds a year to the owner. "
    "Either party may end the lease with three months' notice. "
    "The miller keeps the wheel and the sluice in repair at his own cost."
)
WHALE = (
    "The whale was first seen off the coast of Peru in the month of May. "
    "The captain had sworn to hunt it for the loss of his leg. "
    "Every sailor who raised it first was promised a gold doubloon."
)
FROST = (
    "Frost damages the blossoms of the apple tree when it comes late in spring. "
    "Growers light small fires between the rows to keep the air moving. "
    "A single night below freezing can cost the whole harvest."
)
DOCUMENTS = [
    {
        "id": "lease",
        "title": "Lease of the mill",
        "text": LEASE,
        "metadata": {"year": 1869, "kind": "contract"},
    },
    {"id": "whale", "title": "The whale", "text": WHALE, "metadata": {"year": 1851, "kind": "novel"}},
    {"id": "frost", "title": "Late frost", "text": FROST, "metadata": {"year": 1923, "kind": "report"}},
]


def small_settings(root: Path) -> Settings:
    return Settings(
        data=root / "data",
        embedder=PluginChoice(name="hashing"),
        indexer=PluginChoice(name="exact"),
        language_model=LanguageModelSettings(spec="none"),
        server=ServerSettings(preload=False),
    )


def client_of(settings: Settings) -> TestClient:
    """A client on this machine; entering it starts the application."""
    return TestClient(create_app(settings), base_url="http://127.0.0.1", client=("127.0.0.1", 50000))


def fill(client: TestClient) -> None:
    response = client.post("/v1/collections/books/documents", json={"documents": DOCUMENTS})
    assert response.status_code == 200, response.text
