# CUDA image for training on a GPU; runs the README's two commands. torch's wheels bring their own CUDA 13 libraries, so
# the base has none: a base of NVIDIA's would add gigabytes that nothing loads. The host brings the driver (580 or later)
# and NVIDIA's container toolkit.
#   docker build -f docker/train.Dockerfile -t mobilekd-train .
#   docker run --rm --gpus all -v "$PWD/dist:/src/dist" mobilekd-train make build
FROM python:3.12-slim-bookworm
ENV NVIDIA_VISIBLE_DEVICES=all NVIDIA_DRIVER_CAPABILITIES=compute,utility
RUN apt-get update \
    && apt-get install --yes --no-install-recommends build-essential git make \
    && rm -rf /var/lib/apt/lists/*
WORKDIR /src
COPY . .
RUN make install
CMD ["make", "build"]
