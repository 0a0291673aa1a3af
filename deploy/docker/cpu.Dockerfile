# Head and CPU workers. From the project's folder: docker build -f deploy/docker/cpu.Dockerfile -t d2prune:cpu .
# The tag's Ray and Python are those of constraints.txt and CI: a cluster's nodes must agree on both.
FROM rayproject/ray:2.60.0-py311-cpu

# The base runs as `ray` (uid 1000, no root); so does everything here.
WORKDIR /home/ray/d2prune
COPY --chown=ray:users constraints.txt ./
# PyTorch's CPU build first: PyPI's brings gigabytes of CUDA.
RUN pip install --no-cache-dir --no-deps --index-url https://download.pytorch.org/whl/cpu -c constraints.txt \
    torch torchvision
COPY --chown=ray:users pyproject.toml README.md LICENSE ./
COPY --chown=ray:users pipeline pipeline
RUN pip install --no-cache-dir -c constraints.txt .
COPY --chown=ray:users jobs jobs
ENV RAY_USAGE_STATS_ENABLED=0
USER ray
