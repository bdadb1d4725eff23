# docker build --target cpu  -t anced:cpu .
# docker build --target cuda -t anced:cuda .        (run it with --gpus all; the host's driver has to support CUDA 13)
#
# A server that is reached from outside its machine needs keys:
# docker run -p 8080:8080 -v anced:/data -e ANCED_WRITE_KEY=… -e ANCED_ADMIN_KEY=… anced:cpu

ARG RUST_IMAGE=rust:1.95-bookworm
ARG CPU_IMAGE=debian:bookworm-slim
ARG CUDA_IMAGE=nvidia/cuda:13.0.1-cudnn-runtime-ubuntu24.04

FROM ${RUST_IMAGE} AS build
RUN apt-get update \
    && apt-get install -y --no-install-recommends python3 python3-pip \
    && rm -rf /var/lib/apt/lists/*
WORKDIR /src
COPY scripts scripts
RUN python3 scripts/setup.py --cpu
COPY . .
RUN make build

FROM build AS build-cuda
RUN python3 scripts/setup.py --gpu --only runtime

FROM ${CPU_IMAGE} AS cpu
RUN apt-get update \
    && apt-get install -y --no-install-recommends curl libstdc++6 \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --system --uid 10001 --user-group anced \
    && install -d -o anced -g anced /data
WORKDIR /opt/anced
COPY --from=build /src/target/release/anced ./
COPY --from=build /src/.onnxruntime .onnxruntime
COPY --from=build /src/models/all-MiniLM-L6-v2 models/all-MiniLM-L6-v2
COPY LICENSE ./
ENV ANCED_DATA=/data ANCED_LISTEN=0.0.0.0:8080 ANCED_LOG_FORMAT=json
USER anced
VOLUME /data
EXPOSE 8080
HEALTHCHECK --interval=10s --timeout=3s --start-period=30s \
    CMD curl -fsS http://127.0.0.1:8080/healthz || curl -fsSk https://127.0.0.1:8080/healthz
ENTRYPOINT ["/opt/anced/anced"]
CMD ["serve"]

FROM ${CUDA_IMAGE} AS cuda
RUN apt-get update \
    && apt-get install -y --no-install-recommends curl libstdc++6 \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --system --uid 10001 --user-group anced \
    && install -d -o anced -g anced /data
WORKDIR /opt/anced
COPY --from=build-cuda /src/target/release/anced ./
COPY --from=build-cuda /src/.onnxruntime .onnxruntime
COPY --from=build-cuda /src/models/all-MiniLM-L6-v2 models/all-MiniLM-L6-v2
COPY LICENSE ./
# A container with a GPU is meant to use it: without one the start fails instead of falling back to the CPU.
ENV ANCED_DATA=/data ANCED_LISTEN=0.0.0.0:8080 ANCED_LOG_FORMAT=json ANCED_DEVICE=cuda
USER anced
VOLUME /data
EXPOSE 8080
HEALTHCHECK --interval=10s --timeout=3s --start-period=60s \
    CMD curl -fsS http://127.0.0.1:8080/healthz || curl -fsSk https://127.0.0.1:8080/healthz
ENTRYPOINT ["/opt/anced/anced"]
CMD ["serve"]
