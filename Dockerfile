# surgdino in a container: docs/container.md says how it is built and run.
#   docker build -t surgdino .                                         for NVIDIA cards
#   docker build -t surgdino:cpu --build-arg TORCH_INDEX=URL .         without; pytorch.org/get-started gives the URL of its CPU builds
FROM python:3.11-slim AS build
ARG TORCH_INDEX=""
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
RUN python -m venv /opt/surgdino
WORKDIR /source
COPY pyproject.toml ./
# The bounds of torch and torchvision are those of pyproject.toml, and both come from one place: builds of two do not load together.
RUN if [ -n "$TORCH_INDEX" ]; then \
      /opt/surgdino/bin/pip install --index-url "$TORCH_INDEX" $(sed -n 's/^  "\(torch.*\)",$/\1/p' pyproject.toml); \
    fi
COPY README.md LICENSE ./
COPY configs configs
COPY datasets datasets
COPY recipes recipes
COPY surgdino surgdino
RUN /opt/surgdino/bin/pip install '.[fast,excel,onnx]'

FROM python:3.11-slim
ARG TORCH_INDEX=""
# With a card, torch compiles blocks and needs a C compiler; without one it is left out.
RUN if [ -z "$TORCH_INDEX" ]; then \
      apt-get update && apt-get install -y --no-install-recommends gcc libc6-dev && rm -rf /var/lib/apt/lists/*; \
    fi
COPY --from=build /opt/surgdino /opt/surgdino
# Any user may run it (--user): the names of the account are not looked up, and what is cached goes to /tmp.
ENV PATH=/opt/surgdino/bin:$PATH HOME=/tmp USER=surgdino PYTHONUNBUFFERED=1
RUN useradd --uid 1000 surgdino && install -d -o 1000 -g 1000 /out
USER 1000:1000
WORKDIR /out
ENTRYPOINT ["surgdino"]
CMD ["--help"]
