# syntax=docker/dockerfile:1
# docs/deploy.md says how to build and run it. It was linted, and its steps were run without an engine; it was not built.
#
#   docker buildx build --platform linux/amd64,linux/arm64 --build-arg REVISION=$(git rev-parse HEAD) -t otp-relay .
#
# To pin the base image by its digest: --build-arg PYTHON_IMAGE=docker.io/library/python@sha256:...
ARG PYTHON_IMAGE=docker.io/library/python:3.13.7-slim-bookworm

FROM ${PYTHON_IMAGE} AS build
SHELL ["/bin/bash", "-euo", "pipefail", "-c"]
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1 PIP_ROOT_USER_ACTION=ignore
WORKDIR /src
# Versions and hashes come from the lock files. dkimpy has no wheel at its index; the others need no compiler.
COPY requirements.lock requirements-build.lock ./
RUN python -m venv /build \
    && /build/bin/pip install --require-hashes --no-deps --only-binary :all: -r requirements-build.lock \
    && /build/bin/pip wheel --require-hashes --no-deps --only-binary :all: --no-binary dkimpy --no-build-isolation \
        -w /wheels -r requirements.lock
COPY pyproject.toml README.md LICENSE ./
COPY config config
COPY deploy deploy
COPY docs docs
COPY systemd systemd
COPY relay relay
# The venv has no pip, and its modules are compiled here: nothing is written to it later.
RUN /build/bin/pip wheel --no-deps --no-build-isolation -w /wheels . \
    && python -m venv --without-pip /opt/otp-relay \
    && /build/bin/pip --python /opt/otp-relay/bin/python install --no-index --no-deps --compile /wheels/*.whl

FROM ${PYTHON_IMAGE}
ARG PYTHON_IMAGE
ARG VERSION=0.1.0
ARG REVISION=unknown
ARG CREATED=unknown
LABEL org.opencontainers.image.title="otp-relay" \
      org.opencontainers.image.description="A local SMTP relay that lets one-time codes out first" \
      org.opencontainers.image.licenses="MIT" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}" \
      org.opencontainers.image.created="${CREATED}" \
      org.opencontainers.image.base.name="${PYTHON_IMAGE}"
# The uid is documented: volumes, secrets and security contexts name it.
RUN groupadd --gid 1525 otp-relay \
    && useradd --uid 1525 --gid 1525 --home-dir /var/lib/otp-relay --no-create-home --no-log-init \
        --shell /usr/sbin/nologin otp-relay \
    && install -d -o otp-relay -g otp-relay -m 0700 /var/lib/otp-relay
COPY --from=build /opt/otp-relay /opt/otp-relay
COPY config/container.yaml /etc/otp-relay/relay.yaml
ENV PATH=/opt/otp-relay/bin:$PATH OTP_RELAY_CONFIG=/etc/otp-relay/relay.yaml PYTHONDONTWRITEBYTECODE=1
# A number, so that Kubernetes can see that it isn't root.
USER 1525:1525
WORKDIR /var/lib/otp-relay
VOLUME /var/lib/otp-relay
EXPOSE 2525 8025
# SIGTERM drains: give `docker stop --time` more than the configuration's `shutdown`.
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=5s --start-period=30s --start-interval=1s CMD ["otp-relay", "ready"]
ENTRYPOINT ["otp-relay"]
CMD ["run"]
