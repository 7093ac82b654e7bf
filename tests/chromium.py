"""Headless Chromium, driven over its debugging pipe: no driver, no port, no package."""

from __future__ import annotations

import base64
import json
import os
import select
import shutil
import subprocess
import tempfile
import time
from pathlib import Path
from types import TracebackType
from typing import Any, Final

import pytest

_FLAGS: Final = (
    *("--headless=new", "--no-sandbox", "--disable-gpu", "--remote-debugging-pipe", "--no-first-run"),
    *("--disable-extensions", "--disable-background-networking", "--hide-scrollbars", "--disable-dev-shm-usage"),
)
_TIMEOUT_S: Final = 200.0


def chromium() -> str:
    """Return the browser of this machine; skip the test where there is none."""
    found = shutil.which("chromium") or shutil.which("chromium-browser")
    if found is None:
        pytest.skip("no chromium here; on Debian as root: apt-get install chromium")
    return found


class Browser:
    """One page in a browser of its own.

    Attributes:
        complaints: errors of scripts and everything on the console that is a warning or worse.
    """

    def __init__(self, width: int = 1240, height: int = 1000) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="sparsecomm-chromium-", ignore_cleanup_errors=True)
        to_browser, self._out = os.pipe()
        self._in, from_browser = os.pipe()
        command = [chromium(), *_FLAGS, f"--window-size={width},{height}", f"--user-data-dir={self._folder.name}"]
        # The browser reads file 3 and writes file 4; a shell that knows numbers above 9 puts ours there.
        shell = f'exec "$@" 3<&{to_browser} 4>&{from_browser} 2>/dev/null'
        words = ["bash", "-c", shell, "bash", *command, "about:blank"]
        self._process = subprocess.Popen(
            words, pass_fds=(to_browser, from_browser), stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL
        )
        os.close(to_browser)
        os.close(from_browser)
        self._buffer, self._number, self._session = b"", 0, ""
        self.complaints: list[str] = []
        self._session = self.call("Target.attachToTarget", targetId=self._first_page(), flatten=True)["sessionId"]
        for domain in ("Runtime", "Log", "Page"):
            self.call(f"{domain}.enable")

    def __enter__(self) -> Browser:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        os.close(self._out)  # the browser ends with its pipe
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        os.close(self._in)
        self._folder.cleanup()

    def open(self, path: Path, fragment: str = "") -> float:
        """Open a file and return the seconds until its first contentful paint."""
        self.call("Page.navigate", url="about:blank")
        self.call("Page.navigate", url=f"file://{path}{fragment}")
        self.wait_for("document.readyState === 'complete'")
        self.wait_for("performance.getEntriesByName('first-contentful-paint').length > 0")
        return float(self.run("performance.getEntriesByName('first-contentful-paint')[0].startTime")) / 1e3

    def _first_page(self) -> str:
        """Return the page that the browser opens, which answers before it has one."""
        until = time.monotonic() + _TIMEOUT_S
        while time.monotonic() < until:
            for one in self.call("Target.getTargets")["targetInfos"]:
                if one["type"] == "page":
                    return str(one["targetId"])
            time.sleep(0.02)
        raise TimeoutError("chromium opens no page")

    def run(self, script: str) -> Any:
        """Return the value of an expression, awaited if it is a promise."""
        result = self.call("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in result, result["exceptionDetails"]
        return result["result"].get("value")

    def wait_for(self, condition: str) -> None:
        until = time.monotonic() + _TIMEOUT_S
        while not self.run(condition):
            assert time.monotonic() < until, f"never: {condition}"
            time.sleep(0.02)

    def press(self, key: str) -> None:
        for kind in ("keyDown", "keyUp"):
            self.call("Input.dispatchKeyEvent", type=kind, key=key, code=key)

    def hover(self, x: float, y: float) -> None:
        for step in (3, 0):  # plotly hovers over where the pointer comes to rest
            self.call("Input.dispatchMouseEvent", type="mouseMoved", x=x + step, y=y)

    def shoot(self, path: Path, *, dark: bool = False) -> None:
        """Save a picture of what is in the window."""
        features = [{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}]
        self.call("Emulation.setEmulatedMedia", features=features)
        time.sleep(0.3)
        path.write_bytes(base64.b64decode(self.call("Page.captureScreenshot", format="png")["data"]))

    def call(self, method: str, **params: Any) -> Any:
        """Call a method of the DevTools protocol."""
        self._number += 1
        message = {"id": self._number, "method": method, "params": params}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._out, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._read()
            if answer.get("id") == self._number:
                assert "error" not in answer, (method, answer)
                return answer["result"]
            self._note(answer)

    def _note(self, event: dict[str, Any]) -> None:
        method, params = event.get("method"), event.get("params", {})
        if method == "Runtime.exceptionThrown":
            self.complaints.append(str(params["exceptionDetails"]))
        elif method == "Runtime.consoleAPICalled" and params["type"] in ("error", "warning", "assert"):
            self.complaints.append(str(params["args"]))
        elif method == "Log.entryAdded" and params["entry"]["level"] in ("error", "warning"):
            self.complaints.append(params["entry"]["text"])

    def _read(self) -> dict[str, Any]:
        until = time.monotonic() + _TIMEOUT_S
        while b"\0" not in self._buffer:
            ready, _, _ = select.select([self._in], [], [], max(0.0, until - time.monotonic()))
            assert ready, "chromium does not answer"
            data = os.read(self._in, 1 << 20)
            assert data, "chromium has ended"
            self._buffer += data
        line, self._buffer = self._buffer.split(b"\0", 1)
        message: dict[str, Any] = json.loads(line)
        return message
