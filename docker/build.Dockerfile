# CPU image for building bundles: converters and runtimes. Runs the README's two commands.
#   docker build -f docker/build.Dockerfile -t mobilekd-build --build-arg PIP_EXTRA_INDEX_URL=INDEX .
#   docker run --rm -v "$PWD/dist:/src/dist" mobilekd-build make build
# INDEX is PyTorch's own index of wheels for CPUs. Without it pip takes PyPI's torch, whose CUDA libraries take 3.4 GB.
FROM python:3.12-slim-bookworm
ARG PIP_EXTRA_INDEX_URL
RUN apt-get update \
    && apt-get install --yes --no-install-recommends build-essential git make \
    && rm -rf /var/lib/apt/lists/*
WORKDIR /src
COPY . .
RUN make install
CMD ["make", "build"]
