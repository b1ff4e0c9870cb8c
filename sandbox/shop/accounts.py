"""user-service: accounts, passwords and tokens."""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from random import Random

from sandbox.shop import rules
from sandbox.shop.calls import Request, Response, error, json_response

TOKEN_LIFE_S = 86_400.0
TOKENS_PER_USER = 50
"""Older tokens of one account stop to hold, so a long run does not fill the memory."""


@dataclass(frozen=True, slots=True)
class User:
    """One account."""

    id: int
    email: str
    first_name: str
    last_name: str
    phone_number: str | None
    password_hash: bytes

    def as_json(self) -> dict[str, object]:
        """As the API shows it."""
        return {
            "id": self.id,
            "email": self.email,
            "firstName": self.first_name,
            "lastName": self.last_name,
            "phoneNumber": self.phone_number,
            "status": "ACTIVE",
        }


class Accounts:
    """All accounts. Tokens are random words from the owned generator: good enough for a stand-in, not for a shop."""

    def __init__(self, rng: Random, now: Callable[[], float]) -> None:
        self._rng = rng
        self._now = now
        self._by_email: dict[str, User] = {}
        self._tokens: dict[str, tuple[User, float]] = {}  # token -> user, when it ends
        self._tokens_of: dict[int, list[str]] = {}

    def user_of(self, token: str | None) -> User | None:
        """Whose token it is; None when it is unknown or too old."""
        user, ends_s = self._tokens.get(token or "", (None, 0.0))
        return user if self._now() < ends_s else None

    def register(self, request: Request) -> Response:
        """POST /api/users/register"""
        body = request.body
        problems = rules.problems(body, rules.REGISTER, refuse_unknown=True)
        if problems or not isinstance(body, dict):
            return error(400, "; ".join(problems))
        email = body["email"].lower()
        if email in self._by_email:
            return error(409, "an account with this e-mail address exists")
        user = User(
            id=len(self._by_email) + 1,
            email=email,
            first_name=body["firstName"],
            last_name=body["lastName"],
            phone_number=body.get("phoneNumber"),
            password_hash=_hash(body["password"]),
        )
        self._by_email[email] = user
        return json_response(201, user.as_json())

    def login(self, request: Request) -> Response:
        """POST /api/users/login"""
        body = request.body
        problems = rules.problems(body, rules.LOGIN)
        if problems or not isinstance(body, dict):
            return error(400, "; ".join(problems))
        user = self._by_email.get(body["email"].lower())
        if user is None or user.password_hash != _hash(body["password"]):
            return error(401, "wrong e-mail address or password")
        return json_response(200, {"token": self._new_token(user), "type": "Bearer", "user": user.as_json()})

    def me(self, user: User) -> Response:
        """GET /api/users/me"""
        return json_response(200, user.as_json())

    def _new_token(self, user: User) -> str:
        token = f"{self._rng.getrandbits(256):064x}"
        self._tokens[token] = (user, self._now() + TOKEN_LIFE_S)
        tokens = self._tokens_of.setdefault(user.id, [])
        tokens.append(token)
        if len(tokens) > TOKENS_PER_USER:
            del self._tokens[tokens.pop(0)]
        return token


def _hash(password: str) -> bytes:
    return hashlib.sha256(password.encode("utf-8", "surrogatepass")).digest()
