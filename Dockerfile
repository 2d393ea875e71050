# bidsseg as a container, for any user id, a read-only root file system, no network and no home.
#   docker build -t bidsseg .                          with CUDA, runs on CPUs too
#   docker build --build-arg TORCH=cpu -t bidsseg:cpu .
FROM python:3.11-slim AS base

FROM base AS dependencies
ARG TORCH=cuda
WORKDIR /src
COPY container/install container/
COPY container/locks container/locks
RUN container/install dependencies "$TORCH" /opt/bidsseg
COPY container/compile.py container/
RUN HOME=/nonexistent PYTHONDONTWRITEBYTECODE=1 /opt/bidsseg/bin/python container/compile.py

FROM dependencies AS bidsseg
COPY . .
RUN container/install bidsseg /opt/bidsseg /layer

FROM base
ARG VERSION=0.1.0
LABEL org.opencontainers.image.title="bidsseg" \
      org.opencontainers.image.description="Brain regions of clinical MRI, on the scan's own grid: a BIDS App" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.licenses="Apache-2.0 AND CC-BY-NC-4.0" \
      org.opencontainers.image.vendor="The bidsseg developers"
COPY --from=dependencies /opt/bidsseg /opt/bidsseg
COPY --from=bidsseg /layer/opt/bidsseg /opt/bidsseg
# a home's packages must not mix in; nothing is ever written beside the code
ENV PATH=/opt/bidsseg/bin:$PATH \
    PYTHONNOUSERSITE=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    NVIDIA_VISIBLE_DEVICES=all \
    NVIDIA_DRIVER_CAPABILITIES=compute,utility
# what is not yet compiled: Python itself
RUN python /opt/bidsseg/share/bidsseg/compile.py
USER 65534:65534
RUN sh /opt/bidsseg/share/bidsseg/smoke "$VERSION"
# as a first process, Python would not end at SIGTERM
STOPSIGNAL SIGINT
ENTRYPOINT ["bidsseg"]
