#!/bin/sh
# Build the images of all nodes, try them, and push them if asked to. From any folder:
#   deploy/docker/build.sh registry.example.com/d2prune:0.1.0 [--push]
# makes registry.example.com/d2prune:0.1.0-cpu and -gpu, which deploy/kuberay/settings/settings.env names.
# ENGINE is docker or podman; BUILD_OPTIONS goes to each build, such as "--platform linux/amd64".
set -eu

usage="usage: deploy/docker/build.sh REGISTRY/NAME:TAG [--push]"
image=${1:-}
# A colon before the last slash is the port of the registry.
case $image in
    -* | *[!A-Za-z0-9./:_-]*) echo "$usage: found '$image'" >&2; exit 2 ;;
esac
case ${image##*/} in
    ?*:?*) ;;
    *) echo "$usage: found '$image'; expected a name and a tag" >&2; exit 2 ;;
esac
case ${2:-} in
    "" | --push) ;;
    *) echo "$usage: found '$2'" >&2; exit 2 ;;
esac
engine=${ENGINE:-}
for candidate in docker podman; do
    [ -n "$engine" ] || ! command -v "$candidate" >/dev/null || engine=$candidate
done
[ -n "$engine" ] || { echo "build.sh: found neither docker nor podman; expected one of them" >&2; exit 2; }

cd "$(dirname "$0")/../.."
for kind in cpu gpu; do
    # shellcheck disable=SC2086  # BUILD_OPTIONS are several words.
    "$engine" build ${BUILD_OPTIONS:-} --file "deploy/docker/$kind.Dockerfile" --tag "$image-$kind" .
    "$engine" run --rm "$image-$kind" d2prune --version
    "$engine" run --rm "$image-$kind" python -c "import ray, s3fs"
    "$engine" run --rm "$image-$kind" d2prune models ViT-B-32/openai >/dev/null
    "$engine" run --rm "$image-$kind" python jobs/filter.py --help >/dev/null
done
# Both first: a registry must not hold one of two images that belong together.
if [ "${2:-}" = --push ]; then
    for kind in cpu gpu; do
        "$engine" push "$image-$kind"
    done
fi
echo "$image-cpu"
echo "$image-gpu"
