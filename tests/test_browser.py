"""The web UI in a real headless browser: what a person does with it, and what hostile names do to it."""

import shutil
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import requests

from rl_hooks.decision import SERVICES
from rl_hooks.run_folder import read_manifest
from rl_hooks.run_reader import read_run
from tests.processes import Sandbox, answers, free_port, locust_started, sandbox_started, wait_until

pytestmark = pytest.mark.browser

webdriver = pytest.importorskip("selenium.webdriver", reason="needs the extra browser-test")
By, Keys = import_module("selenium.webdriver.common.by").By, import_module("selenium.webdriver.common.keys").Keys
exceptions = import_module("selenium.common.exceptions")

CHROMIUM, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")
if CHROMIUM is None or DRIVER is None:
    pytest.skip("needs Debian's chromium and chromium-driver", allow_module_level=True)

OPTIONS = (
    *("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync"),
    *("--disable-background-networking", "--disable-component-update", "--window-size=1400,1200"),
)
SLOW = "20"  # time scale of a run that goes on until it is stopped
HOSTILE = "<img src=x onerror=alert(1)>\"'&{{7*7}}"
POLICY = f"""
class Hostile:
    def describe(self):
        return {HOSTILE!r}

    def probabilities(self, previous, observation):
        return (0.5, 0.1, 0.1, 0.1, 0.1, 0.1)
"""


class Page:
    """Locust's page in a browser, as a person sees it."""

    def __init__(self, driver: Any, url: str) -> None:
        self.driver = driver
        self.url = url
        driver.get(url)

    def find(self, css: str, text: str = "") -> list[Any]:
        """Elements that are seen, whose text contains `text`, whatever its case."""
        found = self.driver.find_elements(By.CSS_SELECTOR, css)
        return [one for one in found if one.is_displayed() and text.lower() in one.text.lower()]

    def texts(self, css: str) -> list[str]:
        """The texts of all elements at one moment: our page draws them anew every two seconds."""
        found: list[str] = self.driver.execute_script(
            "return [...document.querySelectorAll(arguments[0])].map((one) => one.innerText)", css
        )
        return found

    def click(self, css: str, text: str = "") -> None:
        def clicked() -> bool:
            found = self.find(css, text)
            if found:
                found[0].click()
            return bool(found)

        self.wait(clicked, f"{css} {text} is there")

    def wait(self, condition: Callable[[], object], what: str) -> None:
        def holds() -> bool:
            try:
                return bool(condition())
            except exceptions.StaleElementReferenceException:  # it was drawn anew just now
                return False

        wait_until(holds, f"{what}; the page: {self.driver.find_element(By.TAG_NAME, 'body').text[:2000]}")

    def fill(self, name: str, text: str) -> None:
        """A field of the start form; those of ours are unfolded first."""
        if not self.find(f'[name="{name}"]'):
            self.click(".MuiAccordionSummary-root", "Custom parameters")
        self.wait(lambda: self.find(f'[name="{name}"]'), f"the field {name} is there")
        self.find(f'[name="{name}"]')[0].send_keys(Keys.CONTROL, "a", Keys.NULL, text)

    def start(self, **fields: str) -> None:
        self.wait(lambda: self.find("button", "start"), "the start form is there")
        for name, text in fields.items():
            self.fill(name, text)
        self.click("button", "start")

    def open_tab(self) -> None:
        """Our page in Locust's tab; the driver is inside it afterwards."""
        self.click('[role="tab"]', "RL")
        self.wait(lambda: self.driver.find_elements(By.ID, "rl-frame"), "the tab shows our page")
        self.driver.switch_to.frame("rl-frame")

    def leave_tab(self) -> None:
        self.driver.switch_to.default_content()

    def figure(self, name: str) -> str:
        """The value of one of the figures at the top of our page."""
        names, values = (self.texts(f"#figures {tag}") for tag in ("dt", "dd"))
        return dict(zip(names, values, strict=True)).get(name, "") if len(names) == len(values) else ""

    def complaints(self) -> list[str]:
        """What the browser had to say against our pages: errors of scripts, and what a policy kept from loading."""
        return [str(entry["message"]) for entry in self.driver.get_log("browser") if "/rl" in entry["message"]]


@pytest.fixture
def sandbox() -> Iterator[Sandbox]:
    """One for each test: a sandbox refuses a new load while that of a Locust that was just killed runs out."""
    with sandbox_started("--healthy") as running:
        yield running


@contextmanager
def browser_started(folder: Path, url: str, *options: str) -> Iterator[Page]:
    """A browser with a profile of its own, whose downloads go to `folder`."""
    settings = webdriver.ChromeOptions()
    for option in (*OPTIONS, f"--user-data-dir={folder / 'profile'}", *options):
        settings.add_argument(option)
    settings.binary_location = CHROMIUM
    settings.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    settings.add_experimental_option("prefs", {"download.default_directory": str(folder)})
    driver = webdriver.Chrome(options=settings, service=webdriver.ChromeService(DRIVER))
    try:
        yield Page(driver, url)
    finally:
        driver.quit()


@contextmanager
def page_opened(tmp_path: Path, host: str, *options: str, path: str = "", **more: Any) -> Iterator[Page]:
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    where = ("--web-host", "127.0.0.1", "--web-port", str(port), "--host", host)
    with locust_started(tmp_path / "locust.log", *where, *options, **more) as locust:
        wait_until(lambda: answers(url), f"the web UI answers: {locust.said}")
        with browser_started(tmp_path, f"{url}{path}") as page:
            yield page


def runs(tmp_path: Path) -> list[Path]:
    return sorted((tmp_path / "runs").glob("*"))


def test_from_the_start_form_to_the_report_card_and_a_second_run(tmp_path: Path, sandbox: Sandbox) -> None:
    with page_opened(tmp_path, sandbox.host) as page:
        page.start(timeScale="fast")
        refusal = "time_scale: 'fast' is not a number. Give one such as 1 or 0.5."
        page.wait(lambda: refusal in page.driver.page_source, "the refusal is seen")
        assert runs(tmp_path) == []

        page.start(timeScale=SLOW, seed="7")
        page.open_tab()
        page.wait(lambda: page.find("#phase", "quick_browsing"), "the phase is seen")
        page.wait(lambda: int(page.figure("Requests recorded").replace(",", "") or 0) > 50, "requests come in")
        page.wait(lambda: page.figure("Reward so far").startswith("0."), "there is a reward")
        before = page.figure("Decisions recorded")
        page.wait(lambda: page.figure("Decisions recorded") != before, "the page goes on by itself")
        assert page.figure("Rows lost") == "0"
        assert page.figure("Telemetry age").endswith(" s")
        assert page.texts("#services tbody th") == list(SERVICES)
        assert all("0.167" in row for row in page.texts("#services tbody tr"))  # under the uniform policy
        assert len(page.texts("#users tbody tr")) == 4
        assert page.texts("#runs button:disabled") == ["EXPORT"]

        page.leave_tab()
        page.click("button", "stop")
        page.driver.switch_to.frame("rl-frame")
        page.wait(lambda: page.find("#state", "interrupted"), "the tab knows that the run has ended")
        page.wait(lambda: page.texts("#runs button:enabled"), "the run can be exported")
        page.click("#runs button", "export")
        page.wait(lambda: page.find("#runs .note", "Exported"), "the export has ended")
        (first,) = runs(tmp_path)
        assert read_manifest(first)["seed"] == 7

        page.click("#runs a", "bundle (zip)")
        downloaded = tmp_path / "run-1-bundle.zip"
        wait_until(downloaded.exists, "the bundle is downloaded")
        with zipfile.ZipFile(downloaded) as archive:
            assert archive.read("run-1-bundle/dataset.json") == (first / "bundle" / "dataset.json").read_bytes()
        page.click("#runs a", "report card")
        wait_until(lambda: len(page.driver.window_handles) == 2, "the report card opens")
        page.driver.switch_to.window(page.driver.window_handles[1])
        page.wait(lambda: page.find("h1", "Report card: quick_validation"), "the report card is seen")
        assert page.find("svg")
        page.driver.close()
        page.driver.switch_to.window(page.driver.window_handles[0])

        sent = len(read_run(first).requests)
        page.click("button", "new")
        page.start(timeScale=SLOW, seed="8")
        page.wait(lambda: len(runs(tmp_path)) == 2, "there is a second run")
        page.open_tab()
        page.wait(lambda: len(page.texts("#runs .entry strong")) == 2, "both are listed")
        page.wait(lambda: page.find("#state", "running"), "the second one is shown")
        page.leave_tab()
        page.click("button", "stop")
        second = runs(tmp_path)[1]
        wait_until(lambda: read_manifest(second)["state"] == "interrupted", "the second run has ended")
        assert read_manifest(second)["seed"] == 8
        assert len(read_run(first).requests) == sent
        assert page.complaints() == []


def test_the_tab_goes_when_another_one_is_chosen_and_follows_locusts_theme(tmp_path: Path, sandbox: Sandbox) -> None:
    with page_opened(tmp_path, sandbox.host) as page:
        page.driver.execute_script("localStorage.theme = 'light'")
        page.driver.refresh()
        page.start(timeScale=SLOW)
        page.open_tab()
        page.wait(lambda: page.find("#phase"), "the run is seen")

        def background() -> str:
            return str(page.driver.execute_script("return getComputedStyle(document.body).backgroundColor"))

        assert background() == "rgb(255, 255, 255)"
        page.leave_tab()
        page.find("header button, .MuiAppBar-root button")[-1].click()  # Locust's own switch
        dark = background()
        assert dark != "rgb(255, 255, 255)"
        page.driver.switch_to.frame("rl-frame")
        page.wait(lambda: background() == dark, "our page has Locust's dark colour")
        page.leave_tab()
        page.click('[role="tab"]', "Charts")
        page.wait(lambda: not page.driver.find_elements(By.ID, "rl-frame"), "the tab's page is gone")
        page.open_tab()
        page.wait(lambda: page.find("#phase"), "and comes back")
        assert page.complaints() == []


@pytest.mark.parametrize("width", [360, 1400])
def test_nothing_is_wider_than_the_screen(tmp_path: Path, sandbox: Sandbox, width: int) -> None:
    with page_opened(tmp_path, sandbox.host, "--autostart", "--time-scale", SLOW, path="/rl/") as page:
        size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": True}
        page.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
        page.wait(lambda: page.find("#services"), "the run is seen")
        page.wait(lambda: page.find("#runs button"), "the list of runs is seen")
        seen = "return document.documentElement.scrollWidth"
        page.wait(lambda: page.driver.execute_script(seen) <= width, "the page is as wide as the screen")
        wide = "[...document.querySelectorAll('.wide')].filter((one) => one.scrollWidth > one.clientWidth + 1)"
        assert page.driver.execute_script(f"return {wide}.length") == 0


def test_hostile_names_are_text_and_nothing_else(tmp_path: Path, sandbox: Sandbox) -> None:
    (tmp_path / "hostile.py").write_text(POLICY)
    folder = tmp_path / "runs" / HOSTILE
    with page_opened(
        tmp_path, sandbox.host, "--run-folder", str(folder), "--logging-policy", "hostile:Hostile"
    ) as page:
        page.start(timeScale=SLOW)
        page.open_tab()
        page.wait(lambda: page.find("#clock", HOSTILE), "the name of the run is seen as it is")
        page.click("summary")
        page.wait(lambda: page.find("#setup", HOSTILE), "and that of the policy")
        page.wait(lambda: page.find("#runs strong", HOSTILE), "and in the list of runs")
        assert page.driver.find_elements(By.CSS_SELECTOR, "main img, main script, main iframe") == []
        page.leave_tab()
        page.click("button", "stop")
        page.driver.switch_to.frame("rl-frame")
        page.wait(lambda: page.texts("#runs button:enabled"), "the run can be exported")
        page.click("#runs button", "export")
        page.wait(lambda: page.find("#runs .note", "Export") and not page.find("#runs button", "exporting"), "it ends")
        page.wait(lambda: page.find("#runs pre", "img src=x"), "what the export says is text too")
        assert page.driver.find_elements(By.CSS_SELECTOR, "main img") == []
        with pytest.raises(exceptions.NoAlertPresentException):
            _ = page.driver.switch_to.alert.text
        (link,) = page.find("#runs a", "report card")
        assert link.get_attribute("href") == f"{page.url}/rl/runs/1/report_card.html"
        page.driver.get(link.get_attribute("href"))
        assert page.driver.find_elements(By.CSS_SELECTOR, "img, script") == []
        with pytest.raises(exceptions.NoAlertPresentException):
            _ = page.driver.switch_to.alert.text


def test_with_a_login_the_tab_comes_after_it(tmp_path: Path, sandbox: Sandbox) -> None:
    env = {"RL_WEB_USER": "rosa", "RL_WEB_PASSWORD": "secret"}
    with page_opened(tmp_path, sandbox.host, "--web-login", path="/rl/", env=env) as page:
        page.wait(lambda: page.find('[name="password"]'), "the login is asked for")
        for password, expected in (("wrong", "The name or the password is wrong."), ("secret", "")):
            page.wait(lambda: page.find('[name="password"]'), "the login is asked for")
            page.find('[name="username"]')[0].send_keys("rosa")
            page.find('[name="password"]')[0].send_keys(password)
            page.click("button", "login")
            page.wait(lambda expected=expected: not expected or page.find("body", expected), "the answer is seen")
        page.start(timeScale=SLOW)
        page.open_tab()
        page.wait(lambda: page.find("#phase", "quick_browsing"), "the run is seen")
        now = page.url.replace("/rl/", "/rl/now")
        assert requests.get(now, allow_redirects=False, timeout=30).status_code == 302
