# GPU workers. From the project's folder: docker build -f deploy/docker/gpu.Dockerfile -t d2prune:gpu .
# The CPU tag is deliberate: PyTorch's wheel includes its own CUDA, and Ray's CUDA tags would add a second copy
# (gigabytes that every spot node pulls). Only the driver comes from the host; the variables below request it.
FROM rayproject/ray:2.60.0-py311-cpu

ENV NVIDIA_VISIBLE_DEVICES=all NVIDIA_DRIVER_CAPABILITIES=compute,utility RAY_USAGE_STATS_ENABLED=0
WORKDIR /home/ray/d2prune
COPY --chown=ray:users constraints.txt ./
RUN pip install --no-cache-dir -c constraints.txt torch torchvision
COPY --chown=ray:users pyproject.toml setup.py README.md LICENSE ./
COPY --chown=ray:users pipeline pipeline
RUN pip install --no-cache-dir -c constraints.txt '.[all]'
# The faiss with GPU search in place of the one without: both install the module `faiss`.
RUN pip uninstall -y faiss-cpu && pip install --no-cache-dir faiss-gpu-cu12==1.14.1.post1
COPY --chown=ray:users jobs jobs
USER ray
# Compiles the kernels that a run needs, for the CPU of this machine; others compile them once more.
RUN printf 'input: %s\nwork_dir: /tmp/first/work\noutput: /tmp/first/out\nembed: {model: demo}\nselect: {fraction: 0.3}\n' \
    "$(python -c 'from d2prune.bundled import POOL_DIR; print(POOL_DIR)')" > /tmp/first.yaml \
    && d2prune run --no-ray --config /tmp/first.yaml && rm -r /tmp/first /tmp/first.yaml
