# Head and CPU workers. From the project's folder: docker build -f deploy/docker/cpu.Dockerfile -t d2prune:cpu .
# Ray and Python in the tag match constraints.txt and CI: all nodes of a cluster must use the same versions.
FROM rayproject/ray:2.60.0-py311-cpu

# Like the base image, run as `ray` (uid 1000), not as root.
WORKDIR /home/ray/d2prune
COPY --chown=ray:users constraints.txt ./
# Install PyTorch's CPU build first: the PyPI build pulls in gigabytes of CUDA.
RUN pip install --no-cache-dir --no-deps --index-url https://download.pytorch.org/whl/cpu -c constraints.txt \
    torch torchvision
COPY --chown=ray:users pyproject.toml setup.py README.md LICENSE ./
COPY --chown=ray:users pipeline pipeline
RUN pip install --no-cache-dir -c constraints.txt '.[all]'
COPY --chown=ray:users jobs jobs
ENV RAY_USAGE_STATS_ENABLED=0
USER ray
# Compiles the kernels that a run needs, for the CPU of this machine; others compile them once more.
RUN printf 'input: %s\nwork_dir: /tmp/first/work\noutput: /tmp/first/out\nembed: {model: demo}\nselect: {fraction: 0.3}\n' \
    "$(python -c 'from d2prune.bundled import POOL_DIR; print(POOL_DIR)')" > /tmp/first.yaml \
    && d2prune run --no-ray --config /tmp/first.yaml && rm -r /tmp/first /tmp/first.yaml
