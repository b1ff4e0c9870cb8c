"""Locust replaces sockets, threads and ssl when it is imported. Not in this process: the tests use the real ones, and
whatever needs a running Locust starts it in a process of its own."""

import os

os.environ["LOCUST_SKIP_MONKEY_PATCH"] = "1"
try:
    import locust  # noqa: F401
finally:
    del os.environ["LOCUST_SKIP_MONKEY_PATCH"]  # the processes that tests start inherit the environment
