# CPU image for devices that are emulated: QEMU for Arm, the cross compiler of the device runner, adb and ssh. Runs the
# README's two commands; `make test` runs the tests that need emulated devices and skips none of them.
#   docker build -f docker/emulator.Dockerfile -t mobilekd-emulator --build-arg PIP_EXTRA_INDEX_URL=INDEX .
#   docker run --rm --privileged mobilekd-emulator
# Privileged: tests mount a full disk and take the network away, in namespaces of their own.
# INDEX: see build.Dockerfile.
FROM python:3.12-slim-bookworm
ARG PIP_EXTRA_INDEX_URL
RUN apt-get update \
    && apt-get install --yes --no-install-recommends \
        adb build-essential chromium fonts-dejavu-core g++-aarch64-linux-gnu gcc-aarch64-linux-gnu git libc6-dev-arm64-cross \
        libstdc++6-arm64-cross make npm openssh-client openssh-server python3.11 qemu-system-arm qemu-user \
    && rm -rf /var/lib/apt/lists/*
WORKDIR /src
COPY . .
RUN make .venv/.dev \
    && .venv/bin/mobilekd toolchain install onnx2tf \
    && .venv/bin/mobilekd toolchain install tflite-support
ENV MOBILEKD_CI=1
CMD ["make", "test"]
