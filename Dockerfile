# docker build -t otp-relay . && docker run --init -v ./relay.yaml:/etc/otp-relay/relay.yaml:ro -v otp-relay:/data otp-relay
# In the configuration: `store: /data/relay.db`, an SMTP listener on 0.0.0.0:2525 with `allow`, and HTTP on
# 0.0.0.0:8025 with a token (or on 127.0.0.1:8025, where only the health check reaches it).
FROM python:3.12-slim AS build
WORKDIR /src
COPY pyproject.toml README.md LICENSE ./
COPY relay relay
RUN python -m venv /opt/otp-relay && /opt/otp-relay/bin/pip install --no-cache-dir .

FROM python:3.12-slim
RUN useradd --system --uid 1525 --home-dir /data --shell /usr/sbin/nologin otp-relay \
    && install -d -o otp-relay -g otp-relay -m 0700 /data
COPY --from=build /opt/otp-relay /opt/otp-relay
ENV PATH=/opt/otp-relay/bin:$PATH OTP_RELAY_CONFIG=/etc/otp-relay/relay.yaml
USER otp-relay
WORKDIR /data
VOLUME /data
EXPOSE 2525 8025
# SIGTERM drains: give `docker stop --time` more than the configuration's `shutdown`.
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=5s --start-period=10s CMD ["python", "-c", \
    "import urllib.request; urllib.request.urlopen('http://127.0.0.1:8025/readyz', timeout=4)"]
ENTRYPOINT ["otp-relay"]
CMD ["run"]
