"""A shopper who signs in and reads, over plain HTTP. Nothing of it is recorded as data."""

import requests

from profiles import shop
from profiles.answers import Answer, Failure, judge, no_answer


class Reader:
    """`reference`: what its requests are told by (X-Session-ID), and the name of its account in a scenario."""

    def __init__(self, host: str, scenario_name: str, reference: str, timeout_s: float) -> None:
        self._host = host.rstrip("/")
        self._account = shop.credentials(f"{scenario_name}.{reference}", 0)
        self._timeout_s = timeout_s
        self._session = requests.Session()
        self._session.headers["X-Session-ID"] = reference

    def sign_in(self) -> Answer:
        """The answer to the login. A shop that does not let it in answers 401 from then on."""
        self.ask(shop.register(self._account))
        answer = self.ask(shop.login(self._account, known=True))
        if answer.ok and isinstance(answer.learned, shop.SignedIn):
            self._session.headers["Authorization"] = f"Bearer {answer.learned.token}"
            self._session.headers["X-User-ID"] = answer.learned.user_id
        return answer

    def ask(self, step: shop.Step) -> Answer:
        """What came of one request, sent once."""
        method, url = step.endpoint.method, f"{self._host}{step.path}"
        try:
            answer = self._session.request(method, url, json=step.body, timeout=self._timeout_s, allow_redirects=False)
        except requests.Timeout:
            return no_answer(Failure.TIMEOUT, f"none within {self._timeout_s:g} s")
        except requests.RequestException as error:
            return no_answer(Failure.CONNECTION, type(error).__name__)
        return judge(step.endpoint, answer.status_code, answer.content)
