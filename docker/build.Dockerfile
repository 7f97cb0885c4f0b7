# CPU image for building bundles: converters and runtimes, no CUDA. Runs the README's two commands.
#   docker build -f docker/build.Dockerfile -t mobilekd-build .
#   docker run --rm -v "$PWD/dist:/src/dist" mobilekd-build make build
FROM python:3.12-slim-bookworm
RUN apt-get update \
    && apt-get install --yes --no-install-recommends build-essential git make \
    && rm -rf /var/lib/apt/lists/*
WORKDIR /src
COPY . .
RUN make install && .venv/bin/mobilekd toolchain install onnx2tf
CMD ["make", "build"]
