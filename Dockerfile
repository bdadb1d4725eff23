# docker build --target cpu  -t anced:cpu .
# docker build --target cuda -t anced:cuda .        (run it with --gpus all; the host's driver has to support CUDA 13)
#
# BuildKit (Docker since 23) or Buildah is needed, for the cache mounts. With podman, say --format docker, or the image
# has no health check. A server that is reached from outside its machine needs keys, and time to stop a refresh:
# docker run -p 8080:8080 -v anced:/data --stop-timeout 60 -e ANCED_WRITE_KEY=… -e ANCED_ADMIN_KEY=… anced:cpu

ARG RUST_IMAGE=rust:1.95-bookworm
ARG CPU_IMAGE=debian:bookworm-slim
ARG CUDA_IMAGE=nvidia/cuda:13.0.1-cudnn-runtime-ubuntu24.04

FROM ${RUST_IMAGE} AS tools
RUN apt-get update \
    && apt-get install -y --no-install-recommends python3 python3-pip \
    && rm -rf /var/lib/apt/lists/*
WORKDIR /src
COPY Makefile ./

# What is fetched stands apart from what is compiled: a change of the source fetches nothing again.
FROM tools AS fetch-cpu
COPY scripts/setup.py scripts/
RUN --mount=type=cache,id=anced-wheels,target=/src/.cache/wheels,sharing=locked make setup

FROM tools AS fetch-cuda
COPY scripts/setup.py scripts/
RUN --mount=type=cache,id=anced-wheels,target=/src/.cache/wheels,sharing=locked make setup GPU=1

FROM tools AS build
COPY Cargo.toml Cargo.lock ./
COPY benches benches
COPY static static
COPY src src
# Dependencies stay compiled in the cache. Cargo goes by the times of files, which mean nothing to a cache that several
# checkouts share, so that our own crate is always compiled.
RUN --mount=type=cache,id=anced-crates,target=/usr/local/cargo/registry,sharing=locked \
    --mount=type=cache,id=anced-target,target=/src/target,sharing=locked \
    touch src/lib.rs src/main.rs && make build && install -D -t /out target/release/anced

FROM ${CPU_IMAGE} AS cpu
RUN apt-get update \
    && apt-get install -y --no-install-recommends curl libstdc++6 tini \
    && rm -rf /var/lib/apt/lists/* \
    && groupadd --gid 10001 anced \
    && useradd --uid 10001 --gid anced --no-create-home --home-dir /data --shell /usr/sbin/nologin anced \
    && install -d -o anced -g anced -m 700 /data
WORKDIR /opt/anced
COPY --from=fetch-cpu /src/models/all-MiniLM-L6-v2 models/all-MiniLM-L6-v2
COPY --from=fetch-cpu /src/.onnxruntime .onnxruntime
COPY LICENSE ./
COPY --from=build /out/anced ./
ENV ANCED_DATA=/data ANCED_LISTEN=0.0.0.0:8080 ANCED_LOG_FORMAT=json
USER 10001:10001
VOLUME /data
EXPOSE 8080
HEALTHCHECK --interval=10s --timeout=5s --retries=6 \
    CMD at=127.0.0.1:${ANCED_LISTEN##*:}/healthz; curl -fsS http://$at || curl -fsSk https://$at
ENTRYPOINT ["tini", "--", "/opt/anced/anced"]
CMD ["serve"]

FROM ${CUDA_IMAGE} AS cuda
RUN apt-get update \
    && apt-get install -y --no-install-recommends curl libstdc++6 tini \
    && rm -rf /var/lib/apt/lists/* \
    && groupadd --gid 10001 anced \
    && useradd --uid 10001 --gid anced --no-create-home --home-dir /data --shell /usr/sbin/nologin anced \
    && install -d -o anced -g anced -m 700 /data
WORKDIR /opt/anced
COPY --from=fetch-cuda /src/models/all-MiniLM-L6-v2 models/all-MiniLM-L6-v2
COPY --from=fetch-cuda /src/.onnxruntime .onnxruntime
COPY LICENSE ./
COPY --from=build /out/anced ./
# A container with a GPU is meant to use it: without one the start fails instead of falling back to the CPU.
ENV ANCED_DATA=/data ANCED_LISTEN=0.0.0.0:8080 ANCED_LOG_FORMAT=json ANCED_DEVICE=cuda
USER 10001:10001
VOLUME /data
EXPOSE 8080
HEALTHCHECK --interval=10s --timeout=5s --retries=6 \
    CMD at=127.0.0.1:${ANCED_LISTEN##*:}/healthz; curl -fsS http://$at || curl -fsSk https://$at
ENTRYPOINT ["tini", "--", "/opt/anced/anced"]
CMD ["serve"]
