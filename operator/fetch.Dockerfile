# The image of nosana-fetch, which fetches the `resources` of job definitions beside the jobs. From the
# repository's root:
#
#   docker build -f operator/fetch.Dockerfile -t nosana-fetch .
#
# Everything that is installed is pinned with its hash. The sandbox makes the same image without Docker
# (sandbox/nosana_sandbox/images/debian.py); a test holds the two together.

FROM python:3.11-slim-bookworm AS build
WORKDIR /src
COPY requirements/build.txt requirements/fetch.txt requirements/
RUN python3 -m pip install --no-cache-dir --disable-pip-version-check --require-hashes \
      -r requirements/build.txt
RUN python3 -m pip install --no-cache-dir --disable-pip-version-check --no-compile --no-build-isolation \
      --require-hashes --no-deps --only-binary=:all: --target /opt/nosana -r requirements/fetch.txt
COPY pyproject.toml README.md LICENSE ./
COPY operator/nosana_operator operator/nosana_operator
RUN python3 -m pip install --no-cache-dir --disable-pip-version-check --no-compile --no-build-isolation \
      --no-deps --target /opt/nosana . \
 && rm -rf /opt/nosana/bin \
 && python3 -m compileall -qq --invalidation-mode unchecked-hash /opt/nosana

FROM python:3.11-slim-bookworm
LABEL org.opencontainers.image.title="nosana-fetch" \
      org.opencontainers.image.description="Fetches the resources of Nosana job definitions" \
      org.opencontainers.image.version="0.1.0" \
      org.opencontainers.image.licenses="Apache-2.0"
COPY --from=build /opt/nosana /opt/nosana
ENV PYTHONPATH=/opt/nosana \
    PYTHONDONTWRITEBYTECODE=1
# No USER: what is fetched belongs to whoever the op runs as, which the pod says.
ENTRYPOINT ["python3", "-m", "nosana_operator.fetching"]
