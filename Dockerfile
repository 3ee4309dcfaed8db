# An image with the server and nothing else: no shell, no package manager, no user but its own.
# docs/deploying.md says how to run it. To pin the base too, build with
# --build-arg PYTHON_IMAGE=python:3.13-slim-trixie@sha256:… of the day.
ARG PYTHON_IMAGE=python:3.13-slim-trixie

FROM ${PYTHON_IMAGE} AS build
WORKDIR /build
ENV UV_NO_CACHE=1 UV_PYTHON_DOWNLOADS=never UV_LINK_MODE=copy PIP_ROOT_USER_ACTION=ignore

# Everything that is installed is checked by the hashes of uv.lock: first uv, then what it installs.
COPY scripts/pinned-uv scripts/
COPY uv.lock pyproject.toml ./
RUN python3 -m venv /tools \
    && scripts/pinned-uv >uv.txt \
    && /tools/bin/pip install --quiet --no-cache-dir --disable-pip-version-check --require-hashes -r uv.txt
RUN UV_PROJECT_ENVIRONMENT=/opt/auditplane /tools/bin/uv sync --frozen --no-default-groups --no-install-project \
    && UV_PROJECT_ENVIRONMENT=/build/hatch /tools/bin/uv sync --frozen --only-group build

COPY LICENSE README.md hatch_build.py ./
COPY src src
RUN /build/hatch/bin/hatchling build -t wheel -d dist \
    && /tools/bin/uv pip install --no-deps --python /opt/auditplane/bin/python dist/*.whl

COPY deploy/minimal_root.py deploy/
RUN /opt/auditplane/bin/python deploy/minimal_root.py /image

FROM scratch
COPY --from=build /image /
ENV PATH=/opt/auditplane/bin \
    PYTHONDONTWRITEBYTECODE=1 \
    AUDITPLANE_DATA=/data \
    AUDITPLANE_HOST=0.0.0.0
USER 65532:65532
VOLUME /data
EXPOSE 3001
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=30s --timeout=10s --start-period=30s CMD ["/opt/auditplane/bin/auditplane", "health"]
ENTRYPOINT ["/opt/auditplane/bin/auditplane"]
CMD ["serve"]
