"""The RL tab in Locust's web UI, and the page it shows.

    GET  /rl/                     the page; alone, or in the tab
    GET  /rl/now                  how the newest run stands, and the runs of this process, as JSON
    POST /rl/runs/1/export        exports a run of this process that is over
    GET  /rl/runs/1/bundle.zip    downloads, by names of a fixed list

Locust's own tabs show tables only. So an empty tab is announced to it, and a script of ours puts the page in there when
it is chosen. Runs are named by number: no name that a user or a file chose is ever part of an address. What a request
gives is looked up, never used as a path.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import gevent
from flask import Blueprint, Response, jsonify, request, send_file

from rl_hooks.record.lead import Lead
from rl_hooks.webui.board import Board, Recorded
from rl_hooks.webui.downloads import BUNDLE_ZIP, NothingThereError, available, bundle_files, find, zipped
from rl_hooks.webui.exports import Exporter, ExportRefusedError

TAB = {"key": "rl", "title": "RL"}
STATIC = Path(__file__).resolve().parent / "static"
ASSETS = {"page.css": "text/css", "page.js": "text/javascript", "tab.js": "text/javascript"}
ENDED = ("complete", "interrupted")

# Nothing from elsewhere, nothing inline, and shown by Locust's own pages only.
PAGE_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
    "frame-ancestors 'self'; base-uri 'none'; form-action 'none'"
)
REPORT_POLICY = "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'; sandbox"  # no script, no origin


def add_tab(web_ui: Any, lead: Lead, project: Path) -> None:
    """Add the tab to a web UI. With `--web-login` all of it asks for the login, as Locust's own pages do."""
    board = lead.onlooker = Board(lead)
    exporter = Exporter(project, lead.environment.parsed_options.logs)
    lead.environment.events.quitting.add_listener(lambda **_: exporter.stop())
    web_ui.template_args["extended_tabs"] = [*web_ui.template_args.get("extended_tabs", []), TAB]
    index = web_ui.app.blueprints["locust"]
    pages = _Pages(board, exporter)
    blueprint = Blueprint("rl", __name__, url_prefix=f"{index.url_prefix or ''}/rl")
    for rule, method, view in pages.routes():
        guarded = web_ui.auth_required_if_enabled(_same_site(view))
        blueprint.add_url_rule(rule, view.__name__, guarded, methods=[method])
    blueprint.after_request(_with_headers)
    web_ui.app.register_blueprint(blueprint)
    web_ui.app.after_request(_with_script)


class _Pages:
    """The views. Their names are the names of the endpoints."""

    def __init__(self, board: Board, exporter: Exporter) -> None:
        self._board = board
        self._exporter = exporter

    def routes(self) -> list[tuple[str, str, Callable[..., Any]]]:
        return [
            ("/", "GET", self.page),
            ("/<name>", "GET", self.asset),
            ("/now", "GET", self.now),
            ("/runs/<int:number>/export", "POST", self.export),
            ("/runs/<int:number>/<name>", "GET", self.download),
        ]

    def page(self) -> Any:
        return send_file(STATIC / "page.html", mimetype="text/html")

    def asset(self, name: str) -> Any:
        if name not in ASSETS:
            return _refused("there is no such page", 404)
        return send_file(STATIC / name, mimetype=ASSETS[name])

    def now(self) -> Any:
        runs = [self._about(recorded) for recorded in reversed(self._board.recorded)]
        return jsonify({"now": self._board.document(), "runs": runs})

    def export(self, number: int) -> Any:
        recorded = self._recorded(number)
        if recorded is None:
            return _refused(f"there is no run {number} of this process", 404)
        if self._board.state(recorded) not in ENDED:
            return _refused("the run is still going on; stop it or wait for its end, then export it", 409)
        try:
            self._exporter.start(number, recorded.folder)
        except ExportRefusedError as error:
            return _refused(str(error), 409)
        return jsonify(self._about(recorded)), 202

    def download(self, number: int, name: str) -> Any:
        recorded = self._recorded(number)
        if recorded is None:
            return _refused(f"there is no run {number} of this process", 404)
        export = self._exporter.of(number)
        if name == BUNDLE_ZIP and export is not None and export.state == "running":
            return _refused("the run is being exported, which replaces its bundle; wait for its end", 409)
        try:
            if name == BUNDLE_ZIP:
                return _zip(recorded.folder, number)
            path = find(recorded.folder, name)
        except NothingThereError as error:
            return _refused(str(error), 404)
        return send_file(path, as_attachment="download" in request.args, download_name=name, max_age=0)

    def _recorded(self, number: int) -> Recorded | None:
        runs = self._board.recorded
        return runs[number - 1] if 1 <= number <= len(runs) else None

    def _about(self, recorded: Recorded) -> dict[str, Any]:
        export = self._exporter.of(recorded.number)
        return {
            "number": recorded.number,
            "name": recorded.folder.name,
            "state": self._board.state(recorded),
            "files": available(recorded.folder),
            "export": None if export is None else export.to_json(),
        }


def _zip(folder: Path, number: int) -> Response:
    pieces = zipped(bundle_files(folder), f"run-{number}-bundle", lambda: gevent.sleep(0))
    response = Response(pieces, mimetype="application/zip")
    response.headers.set("Content-Disposition", "attachment", filename=f"run-{number}-bundle.zip")
    return response


def _same_site(view: Callable[..., Any]) -> Callable[..., Any]:
    """A page of another site cannot read what a view answers, nor make it do something in a user's name.

    Locust allows every origin (CORS); for what is recorded here that is too much.
    """

    def guarded(**arguments: Any) -> Any:
        origin, site = request.headers.get("Origin"), request.headers.get("Sec-Fetch-Site")
        foreign = origin is not None and urlsplit(origin).netloc != request.host
        if site is not None:  # a browser states it, and no page can: it also knows better behind a proxy
            foreign = site not in ("same-origin", "none") and (foreign or request.method == "POST")
        return _refused("requests from pages of other sites are not answered", 403) if foreign else view(**arguments)

    return guarded


def _refused(message: str, status: int) -> tuple[Response, int]:
    return jsonify({"message": message}), status


def _with_headers(response: Response) -> Response:
    endpoint = request.endpoint or ""
    response.headers["Content-Security-Policy"] = REPORT_POLICY if endpoint == "rl.download" else PAGE_POLICY
    response.headers["X-Content-Type-Options"] = "nosniff"
    response.headers["Referrer-Policy"] = "no-referrer"
    if endpoint not in ("rl.asset",):
        response.headers["Cache-Control"] = "no-store"
    return response


def _with_script(response: Response) -> Response:
    """Locust's own page, with our script at its end."""
    if request.endpoint == "locust.index" and response.status_code == 200 and response.mimetype == "text/html":
        page = response.get_data(as_text=True)
        head, end, rest = page.rpartition("</body>")
        response.set_data(f'{head}<script src="./rl/tab.js" defer></script>{end}{rest}')
    return response
