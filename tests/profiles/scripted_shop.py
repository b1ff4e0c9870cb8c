"""A small shop on loopback that misbehaves on request, for real clients. It keeps real state: what took effect shows.

A script says what happens to the next requests of a kind: {"POST /order-service/api/orders": ["lose", "ok"]}. Each
word is used up by one request:

    ok            do it and answer
    lose          do it, then close the connection without an answer
    swallow       do it, then answer far too late
    hang          answer far too late without doing it
    drop          close the connection without doing it
    reset         reset the connection without doing it
    cut           do it, answer half of it, reset the connection
    drip          do it, answer without end
    garbage       do it, answer something that is not what the API says
    packed        do it, answer in an encoding that nobody asked for
    chunked       do it, answer in chunks, with the header Transfer-Encoding: chunked once ...
    chunked-twice ... and twice, as some balancers do
    overlong      do it, answer, and send bytes behind the answer that belong to nothing
    502:409       answer as the balancer does when the service answered 409; do nothing
    401, 503:2    answer this status (with Retry-After: 2); do nothing
    forget        forget all accounts, then answer 401
"""

import json
import os
import socket
import struct
import threading
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

FAR_TOO_LATE_S = 5.0


class ShopState:
    def __init__(self, script: dict[str, list[str]] | None = None, otherwise: str = "ok") -> None:
        self.script = {kind: list(words) for kind, words in (script or {}).items()}
        self.otherwise = otherwise  # the word for all that the script says nothing about
        self.accounts: set[str] = set()
        self.carts: dict[str, Counter[str]] = {}
        self.orders: list[dict[str, Any]] = []
        self.payments: list[dict[str, Any]] = []
        self.seen: list[tuple[str, str]] = []  # every request: kind, trace id
        self.headers: list[dict[str, str]] = []
        self.nonsense: list[str] = []  # request lines that are not HTTP
        self.answered = 0
        self.aborted = 0  # answers that the client did not wait for
        self.show_notes = True
        self.gate = threading.Event()  # requests of the kind `held` wait for it
        self.held = ""
        self.holding = 0  # how many wait for it
        self.over = threading.Event()

    def word(self, kind: str) -> str:
        words = self.script.get(kind)
        return words.pop(0) if words else self.otherwise

    def do(self, method: str, path: str, query: str, body: Any, user: str) -> tuple[int, Any]:
        """Status and body of a request that works."""
        service, _, call = path[1:].partition("/")
        cart = self.carts.setdefault(user, Counter())
        match method, call.split("/")[1:]:
            case "POST", ["users", "register"]:
                known = body["email"] in self.accounts
                self.accounts.add(body["email"])
                return (409, {"error": "exists"}) if known else (201, {"id": 1})
            case "POST", ["users", "login"]:
                if body["email"] not in self.accounts:
                    return 401, {"error": "wrong"}
                return 200, {"token": f"t-{body['email']}", "user": {"id": 7}}
            case "GET", ["users", "me"]:
                return 200, {"id": 7}
            case "GET", ["inventory", "products"] | ["inventory", "products", "category", _]:
                return 200, []
            case "GET", ["inventory", "products", sku]:
                return 200, {"sku": sku}
            case "GET", ["inventory", "search"]:
                return (200, []) if query.startswith("query=") else (400, {})
            case "GET", ["cart"]:
                return 200, self._cart(cart)
            case "GET", ["cart", "summary"]:
                return 200, {"totalItems": cart.total()}
            case "POST", ["cart", "items"]:
                cart[body["productId"]] += body["quantity"]
                return 201, self._cart(cart)
            case "PUT", ["cart", "items"]:
                cart[body["productId"]] = body["quantity"]
                return 200, self._cart(cart)
            case "DELETE", ["cart"]:
                cart.clear()
                return 204, None
            case "POST", ["orders"]:
                if not cart.total():
                    return 400, {"error": "empty cart"}
                order = {"id": len(self.orders) + 1, "user": user, "totalItems": cart.total(), "notes": body["notes"]}
                order |= {"totalAmount": 10.0 * cart.total(), "paymentId": None, "paymentStatus": "PENDING"}
                self.orders.append(order)
                cart.clear()
                return 201, self._order(order)
            case "GET", ["orders", "user"]:
                return 200, [self._order(order) for order in self.orders if order["user"] == user]
            case "GET", ["orders", number]:
                return 200, self._order(self.orders[int(number) - 1])
            case "POST", ["payments"]:
                payment = {"paymentId": f"p{len(self.payments) + 1}", "orderId": body["orderId"], "status": "COMPLETED"}
                self.payments.append(payment)
                self.orders[body["orderId"] - 1] |= {"paymentId": payment["paymentId"], "paymentStatus": "PAID"}
                return 201, payment
        return 404, {"error": f"{method} {path} on {service}"}

    def _order(self, order: dict[str, Any]) -> dict[str, Any]:
        hidden = {"user"} if self.show_notes else {"user", "notes"}
        return {key: value for key, value in order.items() if key not in hidden}

    @staticmethod
    def _cart(cart: Counter[str]) -> dict[str, Any]:
        items = [{"productId": sku, "quantity": units} for sku, units in cart.items() if units]
        return {"items": items, "totalAmount": 10.0 * cart.total(), "totalItems": cart.total()}


def serve(state: ShopState) -> ThreadingHTTPServer:
    """Starts the shop on a free port of loopback; `server_address[1]` is it. End it with `shutdown`."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def handle_any(self) -> None:
            length = int(self.headers.get("Content-Length") or 0)
            body = json.loads(self.rfile.read(length)) if length else None
            path, _, query = self.path.partition("?")
            kind = f"{self.command} {path}"
            state.seen.append((kind, self.headers.get("X-Trace-Id", "")))
            state.headers.append(dict(self.headers.items()))
            if kind == state.held and not state.gate.is_set():
                state.holding += 1
                state.gate.wait(20.0)
            word = state.word(kind)
            status, _, detail = word.partition(":")
            if word == "forget":
                state.accounts.clear()
            if word in ("forget",) or status.isdigit():
                inside = word != "forget" and detail and status == "502"
                text = f"Failed to forward request: {detail} sorry" if inside else "sorry"
                extra = {"Retry-After": detail} if status == "503" and detail else {}
                extra |= {"Location": "/elsewhere"} if status == "302" else {}
                self.reply(401 if word == "forget" else int(status), {"error": text}, extra)
                return
            if word == "hang":
                state.over.wait(FAR_TOO_LATE_S)
            if word == "reset":
                self.reset()
            if word in ("hang", "drop", "reset"):
                self.close_connection = True
                return
            user = self.headers.get("Authorization", "")
            code, answer = state.do(self.command, path, query, body, user)
            if word == "swallow":
                state.over.wait(FAR_TOO_LATE_S)
            if word in ("swallow", "lose"):
                self.close_connection = True
            elif word == "drip":
                self.drip(code)
            elif word == "cut":
                self.send_response(code)
                self.send_header("Content-Length", "100000")
                self.end_headers()
                self.reset()
            elif word in ("chunked", "chunked-twice"):
                self.reply_in_chunks(code, answer, times=2 if word == "chunked-twice" else 1)
            else:
                extra = {"Content-Encoding": "snappy"} if word == "packed" else {}
                self.reply(code, ["?"] if word == "garbage" else answer, extra)
                if word == "overlong":
                    self.wfile.write(b"Transfer-Encoding: chunked\r\n\r\n")

        do_GET = do_POST = do_PUT = do_DELETE = handle_any  # noqa: N815 - http.server's names

        def reply(self, status: int, answer: Any, extra: dict[str, str]) -> None:
            body = b"" if answer is None else json.dumps(answer).encode()
            try:
                self.send_response(status)
                for name, value in {"Content-Length": str(len(body)), **extra}.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(body)
                state.answered += 1
            except OSError:
                state.aborted += 1

        def reply_in_chunks(self, status: int, answer: Any, times: int) -> None:
            body = b"" if answer is None else json.dumps(answer).encode()
            halves = [half for half in (body[: len(body) // 2], body[len(body) // 2 :]) if half]
            self.send_response(status)
            for _ in range(times):
                self.send_header("Transfer-Encoding", "chunked")
            self.end_headers()
            self.wfile.write(b"".join(b"%x\r\n%s\r\n" % (len(half), half) for half in halves) + b"0\r\n\r\n")
            state.answered += 1

        def reset(self) -> None:
            """Closes the connection with a reset (RST) instead of an end (FIN)."""
            self.close_connection = True
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            os.close(self.connection.detach())

        def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:
            """http.server calls it for a request line that makes no sense."""
            state.nonsense.append(self.raw_requestline.decode("latin-1"))
            super().send_error(code, message, explain)

        def drip(self, status: int) -> None:
            self.close_connection = True
            self.send_response(status)
            self.send_header("Content-Length", "100000")
            self.end_headers()
            try:
                for _ in range(int(FAR_TOO_LATE_S / 0.02)):
                    if state.over.wait(0.02):
                        return
                    self.wfile.write(b" ")
            except OSError:
                state.aborted += 1

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - http.server's name
            """Silence."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
    return server
