"""`kubectl proxy` before the API server: its log says what was written, by whoever is behind."""

import json
import re
import subprocess
from collections import Counter
from pathlib import Path

# Of `kubectl proxy -v=6`: one line for each answer of the API server, as newer and older kubectl write it.
WRITE = re.compile(
    r'(?:verb="|\] )(POST|PUT|PATCH|DELETE)(?:" url="| )https?://[^/]+([^"? ]*)[^" ]*"? (?:status=")?(\d+)'
)
PLACE = re.compile(r"/namespaces/[^/]+/([^/]+)(/[^/]+)?(/[^/]+)?$")


class Counting:
    """A proxy on a port of this machine, and a KUBECONFIG that leads to it. Started by `with`."""

    def __init__(self, folder: Path) -> None:
        self.log, self.kubeconfig = folder / "proxy.log", folder / "kubeconfig"

    def __enter__(self) -> "Counting":
        command = ["kubectl", "proxy", "--port=0", "-v=6"]
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, text=True)
        address = self.process.stdout.readline().rsplit(" ", 1)[1].strip()
        config = {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "proxy", "cluster": {"server": f"http://{address}"}}],
            "users": [{"name": "proxy", "user": {}}],
            "contexts": [{"name": "proxy", "context": {"cluster": "proxy", "user": "proxy"}}],
            "current-context": "proxy",
        }
        self.kubeconfig.write_text(json.dumps(config))
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.wait()

    def writes(self) -> Counter[str]:
        """Writes so far by what they were: `POST configmaps`, `PATCH finetunejobs/status`, `… (409)`."""
        found: Counter[str] = Counter()
        for verb, path, status in WRITE.findall(self.log.read_text(errors="replace")):
            place = PLACE.search(path)
            plural, _, below = place.groups() if place else (path, None, None)
            refused = "" if status.startswith("2") else f" ({status})"
            found[f"{verb} {plural}{below or ''}{refused}"] += 1
        return found
