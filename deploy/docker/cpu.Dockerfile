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
