# CUDA image for training on a GPU; the registry's own torch brings its CUDA libraries. Runs the README's two commands.
#   docker build -f docker/train.Dockerfile -t mobilekd-train .
#   docker run --rm --gpus all -v "$PWD/dist:/src/dist" mobilekd-train make build
FROM nvidia/cuda:12.8.1-runtime-ubuntu24.04
RUN apt-get update \
    && apt-get install --yes --no-install-recommends build-essential git make python3 python3-venv python3-dev \
    && rm -rf /var/lib/apt/lists/*
WORKDIR /src
COPY . .
RUN make install && .venv/bin/mobilekd toolchain install onnx2tf
CMD ["make", "build"]
