# The app image: base, locked dependencies, code. The model is joined to it afterwards, as a layer of its own.
# Works with the classic builder and with BuildKit.
ARG BASE=debian:trixie-slim

FROM $BASE AS python
RUN apt-get update \
 && DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends python3 \
 && rm -rf /var/lib/apt/lists/* /var/cache/apt/* /var/cache/debconf/*-old /var/cache/ldconfig/* /var/log/*.log /var/log/apt

FROM python AS dependencies
RUN apt-get update \
 && DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends python3-venv \
 && python3 -m venv /opt/tools \
 && python3 -m venv --without-pip /opt/venv
# The wildcard lets the folder be absent: pip then asks the index that it is set up for. Each file must have a locked hash either way.
COPY app/requirements.txt wheel[s] /build/
RUN index=; for wheel in /build/*.whl; do test ! -e "$wheel" || index=--no-index; done \
 && /opt/tools/bin/pip --python /opt/venv/bin/python --disable-pip-version-check install --no-cache-dir --no-compile \
    --require-hashes --only-binary=:all: $index --find-links /build -r /build/requirements.txt
# What is for developers of models and of extensions, and never imported when serving.
RUN cd /opt/venv/lib/python3*/site-packages \
 && rm -rf onnxruntime/transformers onnxruntime/tools onnxruntime/quantization onnxruntime/datasets onnxruntime/backend \
    numpy/f2py numpy/_core/include numpy/_core/lib numpy/random/lib \
 && find numpy -depth -type d -name tests -exec rm -rf {} + \
 && find . -name '*.pyi' -delete \
 && python3 -m compileall -q --invalidation-mode unchecked-hash /opt/venv/lib \
 && find /opt/venv -exec touch -hd @0 {} +

FROM python AS code
COPY app /srv/app
RUN chmod -R u=rwX,go=rX /srv \
 && python3 -m compileall -q --invalidation-mode unchecked-hash /srv/app \
 && find /srv -exec touch -hd @0 {} +

FROM python
# The runtime of the models must not report home. One thread in numpy's library of linear algebra: it is not used here, and its pool costs memory. Few arenas, because each thread of
# the server would have one of its own, and a fixed threshold, so that the memory of large pictures goes back when they are done with.
ENV PATH=/opt/venv/bin:/usr/local/bin:/usr/bin:/bin \
    HOME=/tmp \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    ORT_DISABLE_TELEMETRY=1 \
    OPENBLAS_NUM_THREADS=1 \
    MALLOC_ARENA_MAX=2 \
    MALLOC_MMAP_THRESHOLD_=4194304
WORKDIR /srv
EXPOSE 8080
STOPSIGNAL SIGTERM
USER 10001:10001
CMD ["python", "-m", "app"]
COPY --from=dependencies /opt/venv /opt/venv
# The model is joined in here: below the code, so that new code leaves the model's bytes where they are.
LABEL twinship.model=here
COPY --from=code /srv/app /srv/app
