"""The encoder as a graph for ONNX Runtime or OpenVINO, behind the same call as ``PackedBert``.

The network of transformers is traced once on this machine, without a network connection, compared with
what it was traced from, and kept in the cache of models under the digest of its weights. Its output are
token vectors, so chunks can be cut from windows as with torch.
"""

from __future__ import annotations

import hashlib
import threading
import warnings
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from importlib import metadata
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from pipeline.encoder.bert import faster_dtype
from pipeline.encoder.folder import EncoderFolder
from pipeline.encoder.library import LibraryEncoder, padded
from pipeline.errors import ConfigurationError, MissingDependencyError, ModelError
from pipeline.made_once import is_intact, made_once
from pipeline.positions import Choice, DynamicNtk, LongRope, SelfExtend
from pipeline.positions.declared import long_rope_of

Backend = Literal["onnx", "openvino"]
Run = Callable[[list[NDArray[np.int64]]], NDArray[np.float32]]
TOLERANCE = 1e-3
"""Most that a float32 graph may differ from torch, relative to the largest component of a vector."""

_PACKAGES = {"onnx": ("onnxruntime", "onnx"), "openvino": ("openvino",)}
_FILES = {"onnx": "model.onnx", "openvino": "model.xml"}
_OPSET = 17


def refuse(
    folder: EncoderFolder, choice: Choice, backend: Backend, dtype: str, device: str, *, compiled: bool
) -> None:
    """Raise ConfigurationError for what a graph of this back end cannot do, before any work, and
    MissingDependencyError where the back end is not installed."""
    unlike = isinstance(choice.method, DynamicNtk | LongRope | SelfExtend)
    dtypes = ("auto", "float32", "bfloat16") if backend == "openvino" else ("auto", "float32")
    if unlike or long_rope_of(folder.config, folder.positions) is not None:
        raise ConfigurationError(
            f"Positions {str(choice.method)!r} of this model depend on the text, which a graph cannot.",
            remedy="Set embedder.backend to torch.",
        )
    if folder.has_head:
        raise ConfigurationError(
            f"The model in {folder.path} has modules after pooling, which are not exported.",
            remedy="Set embedder.backend to torch.",
        )
    if dtype not in dtypes:
        raise ConfigurationError(
            f"The back end {backend!r} does not run in {dtype}.",
            remedy=f"Set dtype to {' or '.join(dtypes)}.",
        )
    if compiled:
        raise ConfigurationError(
            f"A graph for {backend!r} is not compiled by torch.", remedy="Leave compile off."
        )
    if device not in ("auto", "cpu"):
        raise ConfigurationError(
            f"The back end {backend!r} runs on the processor, not on {device!r}.",
            remedy="Set device to cpu, or embedder.backend to torch.",
        )
    _require(backend)


class ExportedEncoder:
    """Token ids to vectors of the last layer, on batches padded to their longest sequence.

    ``revision`` is the digest of the weights, ``cache`` the folder of converted weights, ``threads`` how
    many batches may run at once. Raises ModelError for a network that cannot be traced or does not come out
    the same, and StorageError for a cache that cannot be written.
    """

    def __init__(
        self,
        folder: EncoderFolder,
        backend: Backend,
        dtype: str,
        choice: Choice,
        *,
        revision: str,
        cache: Path,
        threads: int,
    ) -> None:
        self._padding = int(folder.config.get("pad_token_id") or 0)
        self._rotary = folder.position_kind == "rotary"
        target = cache / f"{backend}-{revision[:16]}-{_key(folder, backend, choice)}"
        if not is_intact(target, cache):
            weights = sum(path.stat().st_size for path in folder.path.glob("*.safetensors"))
            made_once(
                target,
                partial(_export, folder, backend, choice),
                source=folder.path.name,
                needed_bytes=lambda: 2 * weights,
                pattern="model.*",
                is_done=partial(is_intact, cache=cache),
            )
        self._run = _loaded(target / _FILES[backend], backend, dtype, threads)

    def __call__(
        self, ids: NDArray[np.int64], lengths: Sequence[int], temperature: float = 1.0
    ) -> NDArray[np.float32]:
        """Vectors float32 ``(T, D)`` for ``ids`` ``(T,)``, the sequences of ``lengths`` in a row.

        Raises ConfigurationError for a temperature of attention other than 1.
        """
        if temperature != 1:
            raise ConfigurationError(
                f"An exported graph has attention of temperature 1, not {temperature:g}.",
                remedy="Set late_temperature to 1, or embedder.backend to torch.",
            )
        features, mask = padded(ids, lengths, self._padding, rotary=self._rotary)
        vectors: NDArray[np.float32] = self._run(list(features.values()))[mask]
        return vectors


def _require(backend: Backend) -> None:
    for package in _PACKAGES[backend]:
        try:
            metadata.version(package)
        except metadata.PackageNotFoundError as error:
            raise MissingDependencyError(
                f"The back end {backend!r} needs the package {package!r}, which is not installed.",
                remedy=f"Install it with: pip install 'longleaf[{backend}]'.",
            ) from error


def _key(folder: EncoderFolder, backend: Backend, choice: Choice) -> str:
    """What else decides over the graph: the configuration, how positions are stretched, who traced it."""
    packages = ("torch", "transformers", _PACKAGES[backend][-1])
    versions = [f"{name}={metadata.version(name)}" for name in packages]
    config = hashlib.sha256((folder.path / "config.json").read_bytes()).hexdigest()
    said = [config, str(choice.method), str(choice.window_tokens), str(_OPSET), *versions]
    return hashlib.sha256("\n".join(said).encode()).hexdigest()[:8]


def _export(folder: EncoderFolder, backend: Backend, choice: Choice, out: Path) -> None:
    """Trace the network into ``out`` and hold the result against it."""
    import torch

    library = LibraryEncoder(folder, "float32", "cpu", choice)
    lengths = [5, 5, min(choice.window_tokens, 40), 1]
    ids = np.random.default_rng(0).integers(0, int(folder.config["vocab_size"]), sum(lengths))
    features, mask = padded(
        ids, lengths, int(folder.config.get("pad_token_id") or 0), rotary=folder.position_kind == "rotary"
    )
    network = _States(library.network, tuple(features))
    example = {name: torch.from_numpy(value) for name, value in features.items()}
    path = out / _FILES[backend]
    try:
        with torch.inference_mode(), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # a tracer warns of every branch; the comparison below decides
            {"onnx": _to_onnx, "openvino": _to_openvino}[backend](network, example, path)
        found = _loaded(path, backend, "float32", 1)(list(features.values()))[mask]
    except Exception as error:  # tracing runs the code of the family, which may raise anything
        raise ModelError(
            f"A network of family {folder.model_type!r} could not be exported for {backend}: {error}",
            remedy="Set embedder.backend to torch.",
        ) from error
    wanted = library(ids, lengths)
    apart = float(np.abs(found - wanted).max() / np.abs(wanted).max())
    if not apart <= TOLERANCE:
        raise ModelError(
            f"The graph of family {folder.model_type!r} for {backend} differs from torch by {apart:.1e}.",
            remedy="Set embedder.backend to torch.",
        )


def _States(network: Any, names: Sequence[str]) -> Any:  # noqa: ANN401 - a module of torch, imported lazily
    """A module that takes the features in order and gives the last states ``(B, T, D)``."""
    import torch

    class States(torch.nn.Module):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.network = network

        def forward(self, *features: Any) -> Any:  # noqa: ANN401 - tensors
            return self.network(**dict(zip(names, features, strict=True))).last_hidden_state

    return States().eval()


def _to_onnx(network: Any, example: Mapping[str, Any], path: Path) -> None:  # noqa: ANN401 - a module
    import torch

    axes = {name: {0: "batch", 1: "tokens"} for name in (*example, "states")}
    torch.onnx.export(
        network, tuple(example.values()), str(path), input_names=list(example), output_names=["states"],
        dynamic_axes=axes, opset_version=_OPSET, dynamo=False,
    )  # fmt: skip


def _to_openvino(network: Any, example: Mapping[str, Any], path: Path) -> None:  # noqa: ANN401 - a module
    """Without ``openvino.convert_model``, which reports its use to its makers."""
    import openvino
    from openvino.frontend import FrontEndManager
    from openvino.frontend.pytorch.ts_decoder import TorchScriptPythonDecoder

    decoder = TorchScriptPythonDecoder(network, example_input=tuple(example.values()))
    frontend = FrontEndManager().load_by_framework("pytorch")
    model = frontend.convert(frontend.load(decoder))
    model.reshape({each: [-1, -1] for each in model.inputs})
    openvino.save_model(model, path, compress_to_fp16=False)


def _loaded(path: Path, backend: Backend, dtype: str, threads: int) -> Run:
    """The graph as a function of its inputs in order; it may be called by several threads at once."""
    return _in_onnx(path) if backend == "onnx" else _in_openvino(path, dtype, threads)


def _in_onnx(path: Path) -> Run:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1  # batches run side by side
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    names = [each.name for each in session.get_inputs()]

    def run(inputs: list[NDArray[np.int64]]) -> NDArray[np.float32]:
        states: NDArray[np.float32] = session.run(None, dict(zip(names, inputs, strict=True)))[0]
        return states

    return run


def _in_openvino(path: Path, dtype: str, threads: int) -> Run:
    import openvino

    exact = (faster_dtype("cpu") if dtype == "auto" else dtype) == "float32"
    compiled = openvino.Core().compile_model(
        path,
        "CPU",
        {
            "INFERENCE_PRECISION_HINT": "f32" if exact else "bf16",
            "INFERENCE_NUM_THREADS": threads,
            "NUM_STREAMS": threads,
        },
    )
    own = threading.local()

    def run(inputs: list[NDArray[np.int64]]) -> NDArray[np.float32]:
        if not hasattr(own, "request"):
            own.request = compiled.create_infer_request()
        states: NDArray[np.float32] = own.request.infer(inputs)[0]
        return states

    return run
