"""The page in a browser without a network: every chart is drawn, tells its values, and nothing is complained of."""

from __future__ import annotations

import html
import json
import re
import shutil
import subprocess

import pytest
from made_runs import add_running, make_run
from test_report import specs_in

from mixstream.report.charts import lines
from mixstream.report.html import write_report

BROWSER = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
pytestmark = pytest.mark.skipif(BROWSER is None, reason="no Chromium to open the page with")

# Waits until all is drawn, points at the middle of a line, and notes on the page what it finds.
PROBE = """
<pre id="found"></pre>
<script>
(async () => {
  while (document.body.dataset.drawn === undefined) await new Promise((done) => setTimeout(done, 20));
  const inked = (canvas) => {
    const pixels = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height).data;
    const colours = new Set();
    for (let i = 0; i < pixels.length; i += 4) if (pixels[i + 3]) colours.add(`${pixels[i]},${pixels[i + 1]},${pixels[i + 2]}`);
    return colours.size;
  };
  const charts = [...document.querySelectorAll(".chart")].map((place) => ({
    figure: place.closest("figure").id,
    width: place.getBoundingClientRect().width,
    drawn: (place.querySelector("svg, canvas") || place).getBoundingClientRect().width,
    lines: place.querySelectorAll("svg .mark-line path").length,
    bars: place.querySelectorAll("svg .mark-rect path").length,
    points: place.querySelectorAll("svg .mark-symbol path").length,
    cut: [...place.querySelectorAll("svg text")].filter((text) => {
      const [own, whole] = [text.getBoundingClientRect(), place.getBoundingClientRect()];
      return own.right > whole.right + 2 || own.left < whole.left - 2 || own.bottom > whole.bottom + 1;
    }).map((text) => text.textContent),
    heard: place.querySelector('[role="img"]')?.getAttribute("aria-label"),
    hidden: place.querySelector("svg, canvas")?.ariaHidden,
    menu: place.querySelector("summary")?.getAttribute("aria-label"),
    colours: place.querySelector("canvas") ? inked(place.querySelector("canvas")) : null,
  }));
  const target = [...document.querySelectorAll("#weights-proxy svg .mark-symbol.role-mark path")].at(-1);
  const told = [];
  const tooltip = async () => {
    await new Promise((done) => setTimeout(done, 200));
    const found = document.getElementById("vg-tooltip-element");
    return found?.classList.contains("visible") ? found.innerText : "nothing";
  };
  if (target) {
    target.scrollIntoView();
    const place = target.getBoundingClientRect();
    const at = { clientX: place.x + place.width / 2, clientY: place.y + place.height / 2, bubbles: true };
    const under = document.elementFromPoint(at.clientX, at.clientY);
    for (const kind of ["pointerover", "pointermove", "mousemove"]) under.dispatchEvent(new PointerEvent(kind, at));
    told.push(await tooltip());
    for (const kind of ["pointerout", "mouseout"]) under.dispatchEvent(new PointerEvent(kind, at));
    told.push(await tooltip());
    under.dispatchEvent(new PointerEvent("click", { ...at, pointerType: "touch" }));
    told.push(await tooltip());
    document.body.dispatchEvent(new PointerEvent("click", { ...at, pointerType: "touch" }));
    told.push(await tooltip());
  }
  const loaded = performance.getEntriesByType("resource").map((entry) => entry.name).filter((name) => !name.startsWith("data:"));
  const scroll = document.documentElement.scrollWidth - window.innerWidth;
  document.getElementById("found").textContent = JSON.stringify({ charts, told, loaded, scroll, ...document.body.dataset });
})();
</script>
"""


def opened(page, scratch, width):
    """What the browser shows of a page, and what it complained of."""
    probed = scratch / "probed.html"
    before, end, after = page.read_text().rpartition("</body>")
    probed.write_text(before + PROBE + end + after)
    command = [BROWSER, "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"]
    command += [f"--user-data-dir={scratch / 'browser'}", f"--window-size={width},900", "--enable-logging=stderr"]
    command += ["--host-resolver-rules=MAP * ~NOTFOUND", "--virtual-time-budget=60000", "--dump-dom", probed.as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    (found,) = re.findall(r'<pre id="found">(.*?)</pre>', done.stdout, flags=re.DOTALL)
    complaints = [line for line in done.stderr.splitlines() if "CONSOLE" in line]
    return json.loads(html.unescape(found)), complaints


@pytest.mark.parametrize("width", [1200, 500])
def test_every_chart_is_drawn_and_tells_its_values(tmp_path, width):
    folders = [
        make_run(tmp_path / "proxy", learnt=True),
        make_run(tmp_path / f"<b>base{'_of_a_long_name' * 6}", loss=1.5),
    ]
    add_running(folders[1])
    write_report(folders, tmp_path / "report.html")
    specs = specs_in((tmp_path / "report.html").read_text())
    found, complaints = opened(tmp_path / "report.html", tmp_path, width)
    assert complaints == []
    assert found["loaded"] == []
    assert int(found["drawn"]) == len(specs) == len(found["charts"]) > 20
    assert found["scroll"] <= 0, "the page is no wider than its window"
    for chart, spec in zip(found["charts"], specs, strict=True):
        rows = spec["data"]["values"]
        assert chart["cut"] == []
        assert chart["heard"].endswith(": its table tells the same")
        assert chart["menu"].startswith("save ")
        assert chart["hidden"] == "true"
        assert chart["width"] * 0.8 < chart["drawn"] <= chart["width"] + 1
        if "layer" in spec and "flatten" in str(spec.get("transform")):
            assert chart["lines"] >= len(rows), chart["figure"]
        else:
            assert max(chart["bars"], chart["points"]) >= len(rows) - 1, chart["figure"]
    pointed, left, touched, elsewhere = found["told"]
    assert re.search(r"of\s+eu\.b\s+batch\s+20\s+weight\s+0\.25", pointed)
    assert (left, touched, elsewhere) == ("nothing", pointed, "nothing")


def test_many_points_are_drawn_as_an_image(tmp_path, monkeypatch):
    monkeypatch.setattr(lines, "ON_CANVAS", 3)
    write_report([make_run(tmp_path / "proxy", learnt=True)], tmp_path / "report.html")
    found, complaints = opened(tmp_path / "report.html", tmp_path, 900)
    assert complaints == []
    images = [chart for chart in found["charts"] if chart["colours"] is not None]
    assert len(images) >= 6
    assert min(chart["colours"] for chart in images) > 10


def test_a_chart_that_cannot_be_drawn_says_so(tmp_path):
    """The test above would see it."""
    write_report([make_run(tmp_path / "base")], tmp_path / "report.html")
    page = tmp_path / "report.html"
    page.write_text(page.read_text().replace('"mark":{"type":"line"', '"mark":{"type":"no such"', 1))
    found, complaints = opened(page, tmp_path, 900)
    assert int(found["drawn"]) == len(found["charts"]) - 1
    assert complaints
