# The agent's image, for every platform in deploy/.
#
#     docker build --tag reconciler:0.1.0 .
#
# What is installed stands in constraints.txt, wheels only, so no stage needs a compiler. The
# packages that the agent needs and the agent itself are two layers: an update of the agent moves a
# few hundred kilobytes to each node. The root file system can be read-only; all that is written
# goes to the two volumes.
ARG BASE=python:3.11-slim-bookworm

FROM ${BASE} AS packages
COPY pyproject.toml constraints.txt /src/
WORKDIR /src
RUN python3 -m venv /build \
 && python3 -m venv --without-pip /opt/reconciler \
 && /build/bin/python -c 'import tomllib; \
project = tomllib.load(open("pyproject.toml", "rb"))["project"]; \
extras = project["optional-dependencies"]; \
wanted = [project["dependencies"], *(extras[name] for name in ("docker", "pubsub", "tracing"))]; \
print(*sum(wanted, []), sep="\n")' >requirements.txt \
 && /build/bin/pip install --no-cache-dir --only-binary :all: \
      --constraint constraints.txt hatchling \
 && /build/bin/pip --python /opt/reconciler/bin/python install --no-cache-dir --only-binary :all: \
      --constraint constraints.txt --requirement requirements.txt

FROM packages AS agent
COPY README.md /src/
COPY reconciler /src/reconciler
COPY schema /src/schema
COPY example-config-repo /src/example-config-repo
RUN /build/bin/pip wheel --no-cache-dir --no-deps --no-build-isolation --wheel-dir /wheels . \
 && /build/bin/pip --python /opt/reconciler/bin/python install --no-cache-dir --no-deps \
      --prefix /opt/agent /wheels/*.whl

FROM ${BASE}
# git reads the config repo, ssh fetches it and checks ssh signatures, gpg checks the others. Manuals
# and what of git serves, mails and pushes by WebDAV would be 35 MB that no agent uses.
RUN printf 'path-exclude=/usr/%s\n' \
      'share/doc/*' 'share/gitweb/*' 'share/locale/*' 'share/man/*' 'bin/git-shell' 'bin/scalar' \
      'lib/git-core/git-daemon' 'lib/git-core/git-http-backend' 'lib/git-core/git-http-fetch' \
      'lib/git-core/git-http-push' 'lib/git-core/git-imap-send' 'lib/git-core/git-shell' \
      'lib/git-core/scalar' >/etc/dpkg/dpkg.cfg.d/only-what-is-used \
 && apt-get update --quiet \
 && apt-get install --yes --no-install-recommends ca-certificates git gpg openssh-client tini \
 && rm -rf /var/lib/apt/lists/* /var/cache/apt /var/log/apt /var/log/dpkg.log
# The numbers are fixed, so that a model server can be given the group and read the models.
RUN groupadd --gid 10001 reconciler \
 && useradd --uid 10001 --gid 10001 --home-dir /var/lib/reconciler --no-create-home \
      --shell /usr/sbin/nologin reconciler \
 && install --directory --owner=10001 --group=10001 --mode=0755 /var/lib/reconciler \
 && install --directory --owner=10001 --group=10001 --mode=0750 /var/lib/reconciler/models \
 && install --directory --owner=10001 --group=10001 --mode=0700 /var/lib/reconciler/state
COPY --from=packages /opt/reconciler /opt/reconciler
COPY --from=agent /opt/agent /opt/reconciler
COPY deploy/image/livez.py /opt/reconciler/livez.py
ENV PATH=/opt/reconciler/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    TMPDIR=/var/lib/reconciler/state \
    RECONCILER_LISTEN=0.0.0.0:8080
USER 10001:10001
WORKDIR /var/lib/reconciler
VOLUME ["/var/lib/reconciler/models", "/var/lib/reconciler/state"]
EXPOSE 8080
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=5s --start-period=30s --retries=3 \
  CMD ["/opt/reconciler/bin/python", "-I", "/opt/reconciler/livez.py"]
# Kubernetes has no init, and each fetch that hangs and is killed leaves an ssh to be buried.
ENTRYPOINT ["tini", "--", "reconciler"]
CMD ["run"]
