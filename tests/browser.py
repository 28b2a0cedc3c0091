"""A headless Chromium: what a page logs, asks the network for, and says when it is acted on."""

from __future__ import annotations

import html
import json
import re
import shutil
import subprocess

import pytest

_PROBE = """<script>
const problems = [];
addEventListener("error", event => problems.push(String(event.message)));
for (const kind of ["error", "warn"]) console[kind] = (...said) => problems.push(said.join(" "));
</script>"""
_ACT = """<script>
addEventListener("load", () => setTimeout(() => {
  const told = {
    ...(() => { ACTION })(),
    title: document.title, problems,
    charts: document.querySelectorAll("div.chart canvas, div.chart svg").length,
    asked: performance.getEntriesByType("resource").map(r => r.name)
      .filter(name => !name.startsWith("data:") && !name.startsWith("blob:")),
  };
  const out = document.createElement("output");
  out.id = "told";
  out.textContent = JSON.stringify(told);
  document.body.append(out);
}, 1500));
</script>"""


def acted_on(page, folder, action):
    """What a page says after a function's body `action` has run in it, beside title, problems,
    charts and what it asked for; skips the test where there is no browser."""
    browser = shutil.which("chromium") or shutil.which("google-chrome")
    if browser is None:
        pytest.skip("no chromium on this machine")
    file = folder / "page.html"
    before, end, after = page.rpartition("</body>")  # the charts' own script has one, too
    act = _ACT.replace("ACTION", action)
    file.write_text(before.replace("<head>", "<head>" + _PROBE, 1) + act + end + after)
    order = [browser, "--headless", "--no-sandbox", "--disable-gpu", "--dump-dom"]
    order += ["--virtual-time-budget=20000", f"--user-data-dir={folder / 'profile'}"]
    done = subprocess.run([*order, file.as_uri()], capture_output=True, text=True, timeout=180)
    found = re.search(r'<output id="told">(.*?)</output>', done.stdout, re.S)
    assert found, done.stderr[-500:]
    return json.loads(html.unescape(found[1]))
