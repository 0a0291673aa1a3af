"""Headless Chromium for tests, driven over the DevTools protocol; tests that need it skip without it."""

import asyncio
import base64
import json
import os
import re
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import resources
from pathlib import Path
from typing import Any

import aiohttp
import pytest

BINARY = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
needs_chromium = pytest.mark.skipif(BINARY is None, reason="chromium is not installed")
_WAIT_S = 30.0


class Page:
    """One tab; `requests` lists the URLs it requested, `errors` the exceptions and console errors."""

    def __init__(self, loop: asyncio.AbstractEventLoop, socket: Any) -> None:
        self._loop, self._socket, self._last, self._session = loop, socket, 0, None
        self.requests: list[str] = []
        self.errors: list[str] = []

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """Send one DevTools command and return its result."""
        return self._loop.run_until_complete(asyncio.wait_for(self._call(method, parameters), _WAIT_S))

    async def _call(self, method: str, parameters: dict[str, Any]) -> dict[str, Any]:
        self._last += 1
        own_id = self._last
        message: dict[str, Any] = {"id": own_id, "method": method, "params": parameters}
        if self._session:
            message["sessionId"] = self._session
        await self._socket.send_str(json.dumps(message))
        while True:
            answer = json.loads((await self._socket.receive()).data)
            self._record_event(answer)
            if answer.get("id") == own_id:
                assert "error" not in answer, (method, answer["error"])
                return answer["result"]

    def _record_event(self, event: dict[str, Any]) -> None:
        params = event.get("params", {})
        if event.get("method") == "Network.requestWillBeSent":
            self.requests.append(params["request"]["url"])
        elif event.get("method") == "Runtime.exceptionThrown":
            self.errors.append(params["exceptionDetails"].get("exception", {}).get("description", "?"))
        elif event.get("method") == "Log.entryAdded" and params["entry"]["level"] == "error":
            self.errors.append(params["entry"]["text"])

    def open(self, url: str, width: int = 1280, height: int = 900, dark: bool = False) -> None:
        """Load a page and wait until it is complete."""
        self.call(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=1,
            mobile=False,
        )
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.call("Emulation.setEmulatedMedia", media="", features=[scheme])
        self.call("Page.navigate", url=url)
        self.until("document.readyState === 'complete'")

    def run(self, script: str) -> Any:
        """Evaluate an expression and return its value; promises are awaited."""
        result = self.call("Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True)
        assert "exceptionDetails" not in result, result["exceptionDetails"]
        return result["result"].get("value")

    def until(self, script: str) -> None:
        """Wait until an expression is true; fail after 20 s."""
        self.run(
            f"new Promise((done, fail) => {{ const start = Date.now(); (function look() {{ let is = false;"
            f"try {{ is = ({script}) }} catch (error) {{}} if (is) done(true);"
            f"else if (Date.now() - start > 20000) fail(new Error({json.dumps(script)}));"
            f"else setTimeout(look, 20) }})() }})"
        )

    def key(self, name: str, code: int, text: str = "") -> None:
        """Press and release a key."""
        common = {"key": name, "windowsVirtualKeyCode": code}
        self.call("Input.dispatchKeyEvent", type="keyDown", text=text, **common)
        self.call("Input.dispatchKeyEvent", type="keyUp", **common)

    def screenshot(self, path: Path, full_page: bool = True) -> None:
        """Write a PNG of the page."""
        shot = self.call("Page.captureScreenshot", captureBeyondViewport=full_page)
        path.write_bytes(base64.b64decode(shot["data"]))


@contextmanager
def chromium() -> Iterator[Page]:
    """Start a browser with a new profile and one tab; both end with the block."""
    assert BINARY
    profile = tempfile.mkdtemp(prefix="d2prune-chromium-")
    flags = ["--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--no-first-run"]
    process = subprocess.Popen(
        [BINARY, *flags, "--remote-debugging-port=0", f"--user-data-dir={profile}", "about:blank"],
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    loop = asyncio.new_event_loop()
    try:
        address = next(
            found[1] for line in process.stderr if (found := re.search(r"listening on (ws://\S+)", line))
        )
        session = loop.run_until_complete(_session())
        socket = loop.run_until_complete(session.ws_connect(address, max_msg_size=0))
        page = Page(loop, socket)
        target = page.call("Target.createTarget", url="about:blank")["targetId"]
        page._session = page.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Network", "Log"):
            page.call(f"{domain}.enable")
        yield page
        loop.run_until_complete(socket.close())
        loop.run_until_complete(session.close())
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        loop.close()
        shutil.rmtree(profile, ignore_errors=True)


async def _session() -> aiohttp.ClientSession:
    return aiohttp.ClientSession()


def serious_violations(page: Page) -> list[str]:
    """The violations that axe-core rates serious or critical on the current page.

    All rules in its present colours, and contrast in those of the other scheme, light or dark.
    """
    # A wheel that carries axe-core; its own functions want playwright's pages.
    source = resources.files("axe_playwright_python").joinpath("axe.min.js").read_text()
    page.run(f"{source}; 0")
    found = _run_axe(page, "{resultTypes: ['violations']}")
    dark = page.run("matchMedia('(prefers-color-scheme: dark)').matches")
    for now in (not dark, dark):
        scheme = {"name": "prefers-color-scheme", "value": "dark" if now else "light"}
        page.call("Emulation.setEmulatedMedia", media="", features=[scheme])
        if now != dark:
            found += _run_axe(page, "{runOnly: ['color-contrast'], resultTypes: ['violations']}")
    return found


def _run_axe(page: Page, options: str) -> list[str]:
    found = page.run(f"axe.run(document, {options}).then(r => r.violations)")
    return [
        f"{violation['id']}: {node['target']} {node['failureSummary']}"
        for violation in found
        if violation["impact"] in ("serious", "critical")
        for node in violation["nodes"]
    ]
