"""Start a run in a Kubernetes cluster: create a RayJob with the specification of a suspended one.

    python start_run.py NAME

Runs in a pod, with the rights of its service account. Requires only the standard library.
"""

import json
import os
import ssl
import sys
import urllib.request
from pathlib import Path
from typing import Any

ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")


def copy_to_start(template: dict[str, Any]) -> dict[str, Any]:
    """The RayJob to create from a suspended one."""
    name = template["metadata"]["name"]
    return {
        "apiVersion": template["apiVersion"],
        "kind": template["kind"],
        "metadata": {"generateName": f"{name}-", "labels": {"started-from": name}},
        "spec": template["spec"] | {"suspend": False},
    }


def start(name: str, server: str, account: Path = ACCOUNT) -> str:
    """Create the RayJob; returns its name.

    Args:
        name: of the suspended RayJob.
        server: URL of the API server.
        account: folder with the token, the namespace and the certificate of the service account.

    Raises:
        urllib.error.HTTPError: there is no such RayJob, or the service account may not create one.
    """
    namespace = (account / "namespace").read_text().strip()
    headers = {
        "Authorization": f"Bearer {(account / 'token').read_text().strip()}",
        "Content-Type": "application/json",
    }
    certificate = account / "ca.crt"
    trust = ssl.create_default_context(cafile=certificate) if server.startswith("https:") else None
    url = f"{server}/apis/ray.io/v1/namespaces/{namespace}/rayjobs"

    def send(place: str, body: bytes | None = None) -> Any:
        request = urllib.request.Request(place, body, headers)
        with urllib.request.urlopen(request, timeout=30, context=trust) as answer:
            return json.load(answer)

    template = send(f"{url}/{name}")
    return str(send(url, json.dumps(copy_to_start(template)).encode())["metadata"]["name"])


if __name__ == "__main__":
    host, port = os.environ["KUBERNETES_SERVICE_HOST"], os.environ["KUBERNETES_SERVICE_PORT"]
    host = f"[{host}]" if ":" in host else host
    print("started", start(sys.argv[1], f"https://{host}:{port}"))
