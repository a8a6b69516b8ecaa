"""What tests in a browser do: serve a folder, open a page of it, read what it shows."""

import contextlib
import re
import signal
import subprocess
import sys
import time

SERVE = "import sys; from alj.cli import invoke; sys.exit(invoke(sys.argv[1:]))"
READY = "main[data-ready='{}']"


@contextlib.contextmanager
def served(folder):
    """`alj monitor` in a process of its own: its address and its id."""
    command = [sys.executable, "-c", SERVE, "monitor", str(folder), "--port", "0"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        address = re.search(r"http://\S+", process.stdout.readline())[0]
        yield address, process.pid
    finally:
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=20) == 0


@contextlib.contextmanager
def watched(tab, folder):
    """The monitor of a folder as long as a tab looks at it."""
    with served(folder) as (address, process):
        yield address, process
        tab.goto("about:blank")


def opened(tab, address, page, run="argon"):
    tab.goto(f"{address}#run={run}&page={page}")
    tab.wait_for_selector(READY.format(f"{run} {page}"))


def text(tab, selector):
    return tab.locator(selector).inner_text()


def drawn(tab, selector):
    """Text of a figure; what is drawn has no inner text."""
    return tab.locator(selector).text_content()


def until(tab, expression, seconds=20):
    """Wait for a script to be true; by asking, since the policy of the page forbids `eval`."""
    ends = time.monotonic() + seconds
    while not tab.evaluate(expression):
        assert time.monotonic() < ends, f"waited {seconds} s for {expression}"
        tab.wait_for_timeout(100)


def rows(tab, table):
    found = tab.locator(f"#{table} tbody tr").all()
    return [[c.inner_text() for c in row.locator("th,td").all()] for row in found]
