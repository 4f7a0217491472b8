"""A headless Chromium driven over its DevTools protocol through a pipe: all that `test_browser.py`
needs, with nothing installed but the browser.

Left out: selenium and playwright, which would be a dependency, a driver and a download for a
hundred lines. The network is not switched off but watched: a request is seen even where it would
fail.
"""

from __future__ import annotations

import fcntl
import json
import os
import select
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from waiting import SECONDS, ended

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
FLAGS = (
    "--headless=new",
    "--remote-debugging-pipe",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--no-first-run",
    "--hide-scrollbars",
)
FLAGS += (
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-default-browser-check",
    "--disable-extensions",
)


def find() -> str | None:
    """The browser's path: $CHROMIUM, or the first of its usual names on the PATH."""
    return os.environ.get("CHROMIUM") or next(
        (path for name in NAMES if (path := shutil.which(name))), None
    )


class Page:
    """One tab. `events` holds all that happened: requests, console messages, errors, dialogs."""

    def __init__(self, read: int, write: int):
        self.read = read
        self.write = write
        self.buffer = b""
        self.number = 0
        self.session = None
        self.events: list[dict[str, Any]] = []
        target = self.send("Target.createTarget", url="about:blank")["targetId"]
        self.session = self.send("Target.attachToTarget", targetId=target, flatten=True)[
            "sessionId"
        ]
        for domain in ("Page", "Runtime", "Network", "Log"):
            self.send(f"{domain}.enable")

    def send(self, method: str, **params: Any) -> dict[str, Any]:
        """Call a method of the protocol and wait for its answer; events on the way are kept."""
        self.number += 1
        call = {"id": self.number, "method": method, "params": params}
        if self.session:
            call["sessionId"] = self.session
        os.write(self.write, json.dumps(call).encode() + b"\0")
        while True:
            message = self._next(SECONDS)
            if message.get("id") == self.number:
                assert "error" not in message, f"{method}: {message['error']}"
                return message["result"]

    def _next(self, seconds: float) -> dict[str, Any]:
        deadline = time.monotonic() + seconds
        while b"\0" not in self.buffer:
            ready, _, _ = select.select([self.read], [], [], max(0.0, deadline - time.monotonic()))
            assert ready, f"the browser said nothing for {seconds:g} seconds"
            chunk = os.read(self.read, 1 << 20)
            assert chunk, "the browser ended"
            self.buffer += chunk
        raw, _, self.buffer = self.buffer.partition(b"\0")
        message = json.loads(raw)
        if "method" in message:
            self.events.append(message)
            if message["method"] == "Page.javascriptDialogOpening":
                accept = {
                    "id": 0,
                    "sessionId": self.session,
                    "method": "Page.handleJavaScriptDialog",
                    "params": {"accept": True},
                }
                os.write(self.write, json.dumps(accept).encode() + b"\0")
        return message

    def open(self, url: str) -> None:
        """Load a page and wait for it."""
        self.events.clear()
        self.send("Page.navigate", url=url)
        while not any(event["method"] == "Page.loadEventFired" for event in self.events):
            self._next(SECONDS)

    def run(self, expression: str) -> Any:
        """The value of a JavaScript expression on the page."""
        answer = self.send(
            "Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True
        )
        assert "exceptionDetails" not in answer, f"{expression}: {answer['exceptionDetails']}"
        return answer["result"].get("value")

    def press(self, key: str, code: int, text: str = "", shift: bool = False) -> None:
        """One key down and up, as the keyboard sends it: `code` is its Windows virtual key code,
        `text` what it types.
        """
        about = {
            "key": key,
            "code": key,
            "windowsVirtualKeyCode": code,
            "modifiers": 8 if shift else 0,
        }
        self.send(
            "Input.dispatchKeyEvent", type="keyDown", **about, **({"text": text} if text else {})
        )
        self.send("Input.dispatchKeyEvent", type="keyUp", **about)

    def requests(self) -> list[str]:
        """Addresses of all that was asked for, the page itself too."""
        return [
            event["params"]["request"]["url"]
            for event in self.events
            if event["method"] == "Network.requestWillBeSent"
        ]

    def complaints(self) -> list[Any]:
        """Console messages, exceptions, refusals of the content security policy, dialogs."""
        loud = (
            "Runtime.exceptionThrown",
            "Runtime.consoleAPICalled",
            "Log.entryAdded",
            "Page.javascriptDialogOpening",
        )
        return [event["params"] for event in self.events if event["method"] in loud]


@contextmanager
def chromium(path: str) -> Iterator[Page]:
    """A fresh browser with a profile of its own, ended and removed afterwards."""
    to_browser, ours, back, from_browser = (
        fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, 10) for fd in (*os.pipe(), *os.pipe())
    )
    # pipe() gives (read, write) twice: the browser reads the first and writes the second, as its
    # descriptors 3 and 4.
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:

        def descriptors() -> None:
            os.dup2(to_browser, 3)
            os.dup2(from_browser, 4)

        command = [path, *FLAGS, f"--user-data-dir={profile}", "about:blank"]
        quiet = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.DEVNULL)
        browser = subprocess.Popen(command, preexec_fn=descriptors, pass_fds=(3, 4), **quiet)
        os.close(to_browser)
        os.close(from_browser)
        try:
            yield Page(back, ours)
        finally:
            browser.terminate()
            ended(browser, "the browser")
            os.close(ours)
            os.close(back)
