# Memory Dumps in a container, over a libvirt that runs outside of it.
#
# libvirtd opens the FIFO of a capture in the *host's* file system. So with a local libvirt DUMP_DIR must be mounted at the
# same path inside and outside, and be writable for uid 8000:
#
#   install -d -o 8000 -g 8000 -m 700 /var/dumps
#   docker run --name memory-dumps -p 127.0.0.1:8000:8000 \
#     -e LIBVIRT_URI=qemu:///system -v /run/libvirt:/run/libvirt \
#     -v /var/dumps:/var/dumps -v memory-dumps:/var/lib/memory-dumps memory-dumps
#
# libvirtd asks the host who uid 8000 is: give it a user there, in the group that may use libvirt (README, "In a container").
# With qemu+ssh:// mount the keys at /var/lib/memory-dumps/.ssh instead of /run/libvirt. Set MEMDUMP_PUBLIC_URL to the URL
# that people use, if it is not on loopback. A fresh login URL: docker exec memory-dumps .venv/bin/python -m app login-url

FROM python:3.11-slim-bookworm AS build
# Debian's packages are not pinned: a rebuild is to bring its security updates.
# hadolint ignore=DL3008
RUN apt-get update \
 && apt-get install --yes --no-install-recommends gcc libc6-dev libvirt-dev pkg-config \
 && rm -rf /var/lib/apt/lists/*
WORKDIR /opt/memory-dumps
COPY requirements.lock ./
RUN python -m venv .venv \
 && .venv/bin/pip install --no-cache-dir --require-hashes --requirement requirements.lock

FROM python:3.11-slim-bookworm
# hadolint ignore=DL3008
RUN apt-get update \
 && apt-get install --yes --no-install-recommends libvirt0 openssh-client tini \
 && rm -rf /var/lib/apt/lists/* \
 && useradd --uid 8000 --user-group --home-dir /var/lib/memory-dumps --shell /usr/sbin/nologin memdump \
 && install --directory --owner=memdump --group=memdump --mode=0700 /var/lib/memory-dumps /var/dumps
WORKDIR /opt/memory-dumps
COPY --from=build /opt/memory-dumps/.venv ./.venv
COPY app ./app
COPY scripts ./scripts
COPY LICENSE ./
# Compiled here, for uid 8000 could not keep what it compiles, and a capture would start in twice the time. Readable for it,
# whatever the umask of the checkout.
RUN .venv/bin/python -m compileall -q --invalidation-mode unchecked-hash app scripts \
 && chmod -R a+rX app scripts
ENV DUMP_DIR=/var/dumps \
    MEMDUMP_LOG_DIR=/var/lib/memory-dumps/log \
    MEMDUMP_STATE_DIR=/var/lib/memory-dumps/state \
    MEMDUMP_HOST=0.0.0.0 \
    MEMDUMP_AUTH=token \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1
USER 8000:8000
VOLUME ["/var/dumps", "/var/lib/memory-dumps"]
EXPOSE 8000
HEALTHCHECK --interval=30s --timeout=5s --start-period=30s \
  CMD [".venv/bin/python", "-c", "import os, ssl, urllib.request as u; s = 'https' if os.environ.get('MEMDUMP_TLS_CERT') else 'http'; u.urlopen(f'{s}://127.0.0.1:{os.environ.get(\"MEMDUMP_PORT\") or 8000}/healthz', timeout=4, context=ssl._create_unverified_context())"]
# tini reaps the ssh of a capture that was killed.
ENTRYPOINT ["tini", "--"]
CMD [".venv/bin/python", "-m", "app"]
