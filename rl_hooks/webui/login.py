"""A login for `--web-login`: Locust asks for one with that option, and leaves it to others to make it.

User and password are those of the environment variables RL_WEB_USER and RL_WEB_PASSWORD, never options: Locust shows
the values of options in its page. Without a password nothing is made here, and a team brings its own login in a locust
file beside ours (`-f locustfile.py,login.py`).
"""

import hmac
import secrets
from collections.abc import Mapping
from typing import Any

import gevent
from flask import Blueprint, redirect, request, session, url_for
from flask_login import UserMixin, login_user

USER, PASSWORD = "RL_WEB_USER", "RL_WEB_PASSWORD"
WRONG_S = 1.0  # real; how long a wrong password waits for its answer


class _User(UserMixin):  # type: ignore[misc]
    def __init__(self, name: str) -> None:
        self.id = name


def add_login(web_ui: Any, environ: Mapping[str, str]) -> None:
    """Make the login that the environment names, if it names one and the web UI asks for it."""
    password, user = environ.get(PASSWORD, ""), environ.get(USER, "locust")
    if not (web_ui.web_login and password):
        return
    app = web_ui.app
    app.secret_key = secrets.token_bytes(32)  # whoever is logged in has to do it again after a restart
    app.config.update(SESSION_COOKIE_SAMESITE="Lax", SESSION_COOKIE_SECURE=bool(web_ui.tls_cert))
    web_ui.login_manager.user_loader(lambda name: _User(name) if name == user else None)
    prefix = app.blueprints["locust"].url_prefix or ""
    blueprint = Blueprint("rl_login", __name__, url_prefix=prefix)
    web_ui.auth_args = {**web_ui.auth_args, "username_password_callback": f"{prefix}/login_submit"}

    @blueprint.post("/login_submit")
    def login_submit() -> Any:
        is_user, is_password = (
            hmac.compare_digest(request.form.get(field, "").encode(), right.encode())
            for field, right in (("username", user), ("password", password))
        )
        if is_user and is_password:
            login_user(_User(user))
            return redirect(url_for("locust.index"))
        gevent.sleep(WRONG_S)
        session["auth_error"] = "The name or the password is wrong."
        return redirect(url_for("locust.login"))

    app.register_blueprint(blueprint)
