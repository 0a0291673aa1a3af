"""A real headless Chromium for tests, spoken to over its DevTools protocol. Tests that ask for it skip without one."""

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
from pathlib import Path
from typing import Any

import aiohttp
import pytest

BINARY = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
needs_chromium = pytest.mark.skipif(BINARY is None, reason="no chromium on this machine")
_WAIT_S = 30.0


class Page:
    """One tab. `requests` lists the URLs it asked for, `errors` what scripts threw or the console complained of."""

    def __init__(self, loop: asyncio.AbstractEventLoop, socket: Any) -> None:
        self._loop, self._socket, self._last, self._session = loop, socket, 0, None
        self.requests: list[str] = []
        self.errors: list[str] = []

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """One DevTools command."""
        return self._loop.run_until_complete(asyncio.wait_for(self._call(method, parameters), _WAIT_S))

    async def _call(self, method: str, parameters: dict[str, Any]) -> dict[str, Any]:
        self._last += 1
        own = self._last
        message: dict[str, Any] = {"id": own, "method": method, "params": parameters}
        if self._session:
            message["sessionId"] = self._session
        await self._socket.send_str(json.dumps(message))
        while True:
            answer = json.loads((await self._socket.receive()).data)
            self._note(answer)
            if answer.get("id") == own:
                assert "error" not in answer, (method, answer["error"])
                return answer["result"]

    def _note(self, event: dict[str, Any]) -> None:
        told = event.get("params", {})
        if event.get("method") == "Network.requestWillBeSent":
            self.requests.append(told["request"]["url"])
        elif event.get("method") == "Runtime.exceptionThrown":
            self.errors.append(told["exceptionDetails"].get("exception", {}).get("description", "?"))
        elif event.get("method") == "Log.entryAdded" and told["entry"]["level"] == "error":
            self.errors.append(told["entry"]["text"])

    def open(self, url: str, width: int = 1280, height: int = 900, dark: bool = False) -> None:
        """Load a page and wait until it is there."""
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
        """The value of an expression, awaited where it is a promise."""
        result = self.call("Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True)
        assert "exceptionDetails" not in result, result["exceptionDetails"]
        return result["result"].get("value")

    def until(self, script: str) -> None:
        """Wait until an expression is true."""
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

    def screenshot(self, path: Path, whole: bool = True) -> None:
        """A PNG of the page."""
        shot = self.call("Page.captureScreenshot", captureBeyondViewport=whole)
        path.write_bytes(base64.b64decode(shot["data"]))


@contextmanager
def chromium() -> Iterator[Page]:
    """One tab of a browser of its own, with a profile of its own, that ends with the block."""
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


def axe_source() -> str | None:
    """axe-core's script, where the environment says it lies: `AXE_CORE=node_modules/axe-core/axe.min.js`."""
    path = os.environ.get("AXE_CORE")
    return Path(path).read_text() if path else None


needs_axe = pytest.mark.skipif(not os.environ.get("AXE_CORE"), reason="AXE_CORE names no axe.min.js")


def serious_faults(page: Page) -> list[str]:
    """What axe-core calls serious or critical on the page as it stands."""
    page.run(f"{axe_source()}; 0")
    found = page.run("axe.run(document, {resultTypes: ['violations']}).then(r => r.violations)")
    return [
        f"{fault['id']}: {node['target']} {node['failureSummary']}"
        for fault in found
        if fault["impact"] in ("serious", "critical")
        for node in fault["nodes"]
    ]
