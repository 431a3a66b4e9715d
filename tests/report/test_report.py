"""Reports: what they say of runs of every state, that values are escaped, and how they look in a browser."""

import html.parser
import json
import math
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

import fewstep
from fewstep.cli import main
from fewstep.experiments.catalogue import EXPERIMENTS
from fewstep.experiments.runs import Run
from fewstep.experiments.training import Training
from fewstep.report import read_run, write_report, write_table_report
from fewstep.report.pictures import svg
from fewstep.training import RunFolder

MALICIOUS = '<script>alert("1")<|script>'
"""As the name of a folder, which holds no slash."""
VOID = ("meta", "link", "br", "img")


class Page(html.parser.HTMLParser):
    """The elements and the text of a page; its tags must be balanced."""

    def __init__(self, file: Path) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self.open: list[str] = []
        self.feed(file.read_text())
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())

    def count(self, tag: str) -> int:
        return sum(name == tag for name, _ in self.elements)


def write_run(folder: Path, rows: list[dict[str, Any]], config: Any = None, results: Any = None) -> Path:
    folder.mkdir(parents=True)
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    for name, content in (("config", config), ("results", results)):
        if content is not None:
            (folder / f"{name}.json").write_text(json.dumps(content))
    return folder


ROWS = [{"iteration": i, "loss": 2 / i} for i in range(1, 6)]
ROWS += [{"iteration": i, "validation": 3 / i, "validation_ci95": 0.1} for i in (2, 5)]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tested run of an experiment."""
    row = EXPERIMENTS["sinusoid-5shot-maml"]
    config = type(row.config)(**{**vars(row.config), "iterations": 4, "meta_batch": 2})
    training = Training(compile=False, log_every=2, validate_every=2, validation_tasks=3)
    run = Run.create(row.name, config, training, tmp_path_factory.mktemp("runs") / "a run's folder")
    run.train(progress=False)
    run.evaluate()
    return run.folder.path


def test_a_run_of_an_experiment(trained: Path):
    page = Page(write_report([trained]))
    for words in (
        "a run's folder", "sinusoid-5shot-maml", "MAML, appendix C, Table 2", "test_queries", "training tasks 8",
        "The run is finished.", "0.67", "A sine wave of amplitude 4 from 5 points",
    ):  # fmt: skip
        assert words in page.text, words
    results = json.loads((trained / "results.json").read_text())
    assert f"{results['mean'][10]:.4f} ± {results['ci95'][10]:.4f}" in page.text
    assert page.count("svg") == 4  # training, validation, inner steps, example
    assert "outer iterations" in page.words, "text in pictures is text"
    identifiers = [attributes["id"] for _, attributes in page.elements if "id" in attributes]
    assert len(set(identifiers)) == len(identifiers)


def test_an_unfinished_run_says_how_to_resume(tmp_path: Path):
    config = {"experiment": "sinusoid-5shot-maml", "config": {"iterations": 70000}, "training": {"seed": 3}}
    folder = write_run(tmp_path / "my run", ROWS, config)
    page = Page(write_report([folder]))
    assert f"fewstep train --resume '{folder}'" in page.text
    assert "5 of 70,000" in page.text
    assert "No checkpoint has been saved yet." in page.text
    assert "Not tested yet" in page.text


def test_a_run_of_fit_without_an_experiment(tmp_path: Path):
    learner = fewstep.maml(fewstep.models.MLP(1, [4], 1), fewstep.mse, inner_lr=0.01)
    source, optimizer = fewstep.tasks.Sinusoids(), torch.optim.Adam(learner.parameters())
    fewstep.fit(learner, source, optimizer, iterations=4, log_every=1, run=tmp_path / "fit", progress=False)
    page = Page(write_report([tmp_path / "fit"]))
    assert f"iterations=..., run={str(tmp_path / 'fit')!r}, resume=True" in page.text
    assert "There was no validation." in page.text
    assert "the model and the tasks are in the program" in page.text
    assert "meta_batch 25" in page.text
    assert page.count("svg") == 1
    assert "training time" in page.text


def test_runs_beside_each_other(trained: Path, tmp_path: Path):
    config = {"experiment": "sinusoid-5shot-fomaml", "config": {"iterations": 9, "shots": 5}, "training": {"seed": 3}}
    other = write_run(tmp_path / "b", ROWS, config)
    page = Page(write_report([trained, other], tmp_path / "both.html", examples=False))
    comparison = page.text[page.text.index("Comparison") : page.text.index("How to resume")]
    assert "Settings that differ" in comparison
    assert "iterations 4 9" in comparison
    assert "seed 0 3" in comparison
    assert "shots 5 5" not in comparison
    assert page.count("svg") == 3 + 3 + 2
    assert {"#run-0", "#run-1"} <= {attributes.get("href") for _, attributes in page.elements}
    twice = Page(write_report([trained, trained], tmp_path / "twice.html", examples=False))
    assert str(trained) in twice.words, "runs in folders of one name are called by their paths"


def test_nothing_logged_yet(tmp_path: Path):
    page = Page(write_report([write_run(tmp_path / "a", [])]))
    assert "No metrics have been logged" in page.text
    assert page.count("svg") == 0


def test_values_that_are_not_finite(tmp_path: Path):
    rows = [*ROWS, {"iteration": 6, "loss": math.nan}, {"iteration": 7, "validation": math.inf, "validation_ci95": 1.0}]
    results = {"metric": "mse", "tasks": 3, "iterations": 7, "mean": [1.0, math.nan], "ci95": [math.inf, math.nan]}
    page = Page(write_report([write_run(tmp_path / "a", rows, None, results)]))
    assert "The meta-loss is nan at iteration 6" in page.text
    assert "The validation metric is inf at iteration 7" in page.text
    assert "The test metric is not finite" in page.text
    only = [{"iteration": 1, "loss": math.nan}, {"iteration": 1, "validation": math.nan, "validation_ci95": math.nan}]
    assert Page(write_report([write_run(tmp_path / "b", only)])).count("svg") == 2


@pytest.mark.parametrize("content", ["{", "[]", '{"mean": [1]}', '{"mean": ["<b>"], "ci95": [1]}'])
def test_damaged_files_are_named(tmp_path: Path, content: str):
    folder = write_run(tmp_path / "a", ROWS, {"experiment": "sinusoid-5shot-maml"})
    (folder / "results.json").write_text(content)
    (folder / "metrics.jsonl").write_text('{"iteration": 1, "loss": 1.0}\n{"iteration": "x"}\n[1]\n{"itera')
    (folder / "checkpoints").mkdir()
    (folder / "checkpoints" / "last.safetensors").write_bytes(b"?")
    page = Page(write_report([folder]))
    assert "results.json" in page.text
    assert "last.safetensors is damaged" in page.text


def test_folders_that_are_not_runs_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    with pytest.raises(FileNotFoundError, match="There is no run folder"):
        read_run(tmp_path / "none")
    with pytest.raises(FileNotFoundError, match="is not a run folder: it has no config.json"):
        read_run(tmp_path)
    with pytest.raises(ValueError, match="at least one"):
        write_report([])
    with pytest.raises(SystemExit):
        main(["report", str(tmp_path / "none"), "--allocator", "default"])
    assert f"There is no run folder {tmp_path / 'none'}" in capsys.readouterr().err


def malicious(folder: Path) -> Path:
    image = '"><img src="https://example.invalid/a.png" onerror="alert(1)">'
    config = {
        "experiment": "</title><b>x</b>", "config": {"iterations": 9, "<i>": MALICIOUS, "$x$": None, image: image},
        "training": {"a": {"b<": 1}}, "commit": image,
    }  # fmt: skip
    results = {"metric": "<svg onload=alert(1)>", "tasks": 3, "iterations": 7, "mean": [1.0, 0.5], "ci95": [0.1, 0.1]}
    results |= {"checkpoint": "</p><script>", "processor": "<style>*{display:none}</style>"}
    return write_run(folder / MALICIOUS, [*ROWS, {"iteration": 3, "<script>": 1.0}], config, results)


def test_every_name_and_value_is_escaped(tmp_path: Path):
    folder = malicious(tmp_path)
    for runs in ([folder], [folder, write_run(tmp_path / "$\\frac$", ROWS)]):
        page = Page(write_report(runs, tmp_path / "report.html"))
        assert page.count("script") == page.count("img") == page.count("b") == page.count("i") == 0
        assert page.count("style") == page.count("title") == 1
        assert not [name for _, attributes in page.elements for name in attributes if name.startswith("on")]
        assert MALICIOUS in page.text


def test_text_in_pictures_is_escaped():
    from fewstep.figures.style import figure, title

    drawn, ((axes,),) = figure()
    title(axes, "<script>$x$</script>")
    made = svg(drawn, 'a "label" <b>', "one")
    assert "<script>" not in made
    assert "&lt;script&gt;$x$&lt;/script&gt;" in made
    assert 'aria-label="a &quot;label&quot; &lt;b&gt;"' in made


def test_the_report_of_a_reproduction(tmp_path: Path):
    results = Path(__file__).parents[2] / "reproduction" / "sinusoid"
    (tmp_path / "curves").mkdir()
    for name in ("sinusoid-5shot-maml-seed0", "sinusoid-5shot-pretrained-seed0"):
        shutil.copy(results / f"{name}.json", tmp_path)
    curve = "".join(json.dumps(row) + "\n" for row in ROWS)
    (tmp_path / "curves" / "sinusoid-5shot-maml-seed0.jsonl").write_text(curve)
    page = Page(write_table_report(tmp_path, "sinusoid", tmp_path / "report.html"))
    assert page.text.count("How to resume") == 2
    assert page.count("svg") == 3 + 3 + 1, "one of the two has a learning curve"
    assert "Reproduction: sinusoid" in page.text


def test_many_runs_have_their_curves_in_the_comparison_only(tmp_path: Path):
    runs = [write_run(tmp_path / f"run{number}", ROWS) for number in range(9)]
    page = Page(write_report(runs))
    assert page.text.count("How to resume") == 9
    assert page.count("svg") == 4, "eight runs in a picture, and the ninth"


# In a browser


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    webdriver = pytest.importorskip("selenium.webdriver")
    chromium, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if chromium is None or driver is None:
        pytest.skip("needs Chromium and its driver: apt-get install chromium chromium-driver")
    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    for option in ("--headless=new", "--disable-gpu", "--disable-dev-shm-usage", "--hide-scrollbars"):
        options.add_argument(option)
    if os.geteuid() == 0:
        options.add_argument("--no-sandbox")  # which Chromium has for other users only
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    started = webdriver.Chrome(options=options, service=webdriver.ChromeService(driver))
    yield started
    started.quit()


@pytest.fixture(scope="module")
def file(trained: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A report of four runs: one with everything, one of fit, one with malicious names, one with a photograph."""
    folder = tmp_path_factory.mktemp("reports")
    of_fit = write_run(folder / ("anamewithoutanend" * 12), ROWS)
    robot = write_run(folder / "robot", ROWS, {"experiment": "cheetah-direction-maml"})
    RunFolder(robot).save({"iteration": 5})
    Image.new("RGB", (900, 300), "red").save(robot / "film.png")
    return write_report([trained, of_fit, malicious(folder), robot], folder / "report.html")


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize(("width", "height"), [(1280, 900), (390, 844)])
def test_in_a_browser(browser: Any, file: Path, width: int, height: int, scheme: str):
    screen = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", screen)
    feature = {"name": "prefers-color-scheme", "value": scheme}
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [feature]})
    for kind in ("browser", "performance"):
        browser.get_log(kind)
    browser.get(file.as_uri())
    assert browser.get_log("browser") == [], "no errors on the console"
    events = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
    asked = {event["params"]["request"]["url"] for event in events if event["method"] == "Network.requestWillBeSent"}
    assert {url for url in asked if not url.startswith("data:")} == {file.as_uri()}
    assert browser.execute_script("return innerWidth") == width
    assert browser.execute_script("return document.documentElement.scrollWidth") == width, "nothing sticks out"
    images = "return [...document.querySelectorAll('img')].map(image => image.complete && image.naturalWidth)"
    assert browser.execute_script(images) == [900]
    sizes = browser.execute_script("return [...document.querySelectorAll('svg')].map(svg => svg.clientWidth)")
    assert len(sizes) > 6
    assert min(sizes) > 250
    text = browser.execute_script("return document.body.innerText")
    for words in ("Comparison", MALICIOUS, "How to resume", "outer iterations", "The run is finished."):
        assert words in text, words
    paper, ink = browser.execute_script(
        "const style = getComputedStyle(document.body); return [style.backgroundColor, style.color]"
    )
    assert contrast(paper, ink) > 7
    assert (luminance(paper) < 0.1) == (scheme == "dark")
    letters = browser.execute_script(
        "return [...document.querySelectorAll('svg text')].map(text => getComputedStyle(text).fill)"
    )
    assert min(contrast(paper, colour) for colour in set(letters)) > 4.4
    lines = browser.execute_script(
        "return [...document.querySelectorAll('svg path')].map(path => getComputedStyle(path))"
        ".filter(style => style.stroke.startsWith('rgb(') && style.strokeOpacity == 1).map(style => style.stroke)"
    )
    assert min(contrast(paper, colour) for colour in set(lines) - {paper}) > 2.4


def luminance(colour: str) -> float:
    """Relative luminance, as WCAG 2 defines it, of ``rgb(r, g, b)``."""
    parts = [int(part) / 255 for part in colour.removeprefix("rgb(").removesuffix(")").split(",")]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(a: str, b: str) -> float:
    """The contrast ratio of two colours, as WCAG 2 defines it."""
    low, high = sorted((luminance(a), luminance(b)))
    return (high + 0.05) / (low + 0.05)
