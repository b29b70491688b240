"""The page in a real browser: no error, nothing too wide, sorting and picking by keyboard."""

from __future__ import annotations

import shutil

import numpy as np
import pandas as pd
import pytest

from ehrmeta import TreatmentResponse
from ehrmeta.baselines import MixedEffects
from ehrmeta.report import forecast_report, treatment_report

webdriver = pytest.importorskip("selenium.webdriver")
keys = pytest.importorskip("selenium.webdriver.common.keys").Keys

CHROMIUM, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")
FORECAST, TREATMENT = "forecast.html", "treatment.html"
HOSTILE = '<script>document.title = "taken"</script>'

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not (CHROMIUM and DRIVER), reason="needs chromium and chromedriver"),
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Both kinds of page: on forecasts of patients, and on a treatment at several sites."""
    folder = tmp_path_factory.mktemp("pages")
    rng = np.random.default_rng(0)
    groups, time = np.repeat(np.arange(120), 6), np.tile(np.arange(6.0), 120)
    kind = np.repeat(rng.choice(["a", "b", "c"], 120, p=[0.5, 0.3, 0.2]), 6)
    X = pd.DataFrame({"age": np.repeat(rng.uniform(20, 80, 120), 6), HOSTILE: kind})
    y = rng.normal(50, 5, 120)[groups] + rng.normal(size=720)
    model = MixedEffects().fit(X, y, groups=groups, time=time)
    shots = {"shots": (0, 1, 2), "examples": 3}
    forecast_report(model, X, y, groups=groups, time=time, **shots).save(folder / FORECAST)

    site = rng.choice(["north", "south", "east", "west"], 400, p=[0.4, 0.3, 0.2, 0.1])
    arm = rng.choice(["usual", HOSTILE], 400)
    covariates = pd.DataFrame({"age": rng.normal(60, 10, 400), HOSTILE: rng.normal(size=400)})
    gain = 3.0 * (arm == HOSTILE) + rng.normal(size=400)
    response = TreatmentResponse(propensity=0.5, final="constant", control="usual", random_state=0)
    response.fit(covariates, gain, treatment=arm, groups=site)
    treatment_report(response).save(folder / TREATMENT)
    return folder


@pytest.fixture(scope="module")
def chromium():
    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    for argument in ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options, webdriver.ChromeService(DRIVER))
    yield driver
    driver.quit()


@pytest.fixture(params=[FORECAST, TREATMENT])
def browser(request, chromium, folder):
    chromium.get((folder / request.param).as_uri())
    return chromium


of_forecasts = pytest.mark.parametrize("browser", [FORECAST], indirect=True)
of_both = pytest.mark.parametrize(
    ("browser", "table"),
    [(FORECAST, "After 2 values"), (TREATMENT, "Effect on y with 95 % interval")],
    indirect=["browser"],
)


def test_it_opens_without_an_error_and_hostile_names_stay_text(browser):
    assert browser.get_log("browser") == []
    assert browser.title.startswith(("Evaluation of a prediction model", "Effect of a treatment"))
    assert HOSTILE in browser.find_element("tag name", "body").text


@pytest.mark.parametrize("width", [400, 1400])
def test_the_page_is_as_wide_as_the_window(browser, width):
    metrics = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": False}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    assert browser.execute_script("return window.innerWidth") == width
    assert browser.execute_script("return document.documentElement.scrollWidth") <= width
    # Pictures that would be too small to read scroll by themselves.
    smallest = browser.execute_script(
        "return Math.min(...[...document.querySelectorAll('figure:not([hidden]) svg')].flatMap("
        "s => [...s.querySelectorAll('text')].map(t => parseFloat(getComputedStyle(t).fontSize)"
        " * s.getBoundingClientRect().width / s.viewBox.baseVal.width)))"
    )
    assert smallest >= 8


@of_both
def test_tables_are_sorted_by_keyboard(browser, table):
    table = browser.find_element("xpath", f"//table[caption[starts-with(., '{table}')]]")
    button = table.find_elements("css selector", "th button")[1]

    def patients() -> list[int]:
        rows = table.find_elements("css selector", "tbody tr td:nth-of-type(1)")
        return [int(cell.text) for cell in rows if cell.text]  # that of the mean is empty

    browser.execute_script("arguments[0].focus()", button)
    browser.switch_to.active_element.send_keys(keys.ENTER)
    assert patients() == sorted(patients())
    assert table.find_elements("css selector", "th")[1].get_attribute("aria-sort") == "ascending"
    browser.switch_to.active_element.send_keys(keys.ENTER)
    assert patients() == sorted(patients(), reverse=True)
    assert len(set(patients())) > 1


@of_forecasts
def test_one_patient_is_shown_and_another_picked_by_keyboard(browser):
    picker = browser.find_element("css selector", "select.picker")
    figures = picker.find_elements("xpath", "./ancestor::section//figure")
    assert [figure.is_displayed() for figure in figures] == [True, False, False]
    picker.send_keys(keys.ARROW_DOWN)
    assert [figure.is_displayed() for figure in figures] == [False, True, False]


def test_everything_that_acts_is_reached_by_tab(browser):
    inside = browser.execute_script("return document.querySelectorAll('a, button, select').length")
    browser.execute_script("document.activeElement.blur(); window.scrollTo(0, 0)")
    reached = set()
    for _ in range(3 * inside):
        browser.switch_to.active_element.send_keys(keys.TAB)
        element = browser.switch_to.active_element
        if element.tag_name in ("a", "button", "select"):
            reached.add(element.id)
    assert len(reached) == inside
