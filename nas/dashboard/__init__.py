"""The study in optuna-dashboard, with all that is known of each trial, served to a browser."""

import errno
import socketserver
import wsgiref.simple_server
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import optuna
import optuna_dashboard

from nas.dashboard.view import StudyView
from nas.errors import ConfigError
from nas.paths import StudyPaths
from nas.study.storage import open_study


class _Server(socketserver.ThreadingMixIn, wsgiref.simple_server.WSGIServer):
    daemon_threads = True


class _Quiet(wsgiref.simple_server.WSGIRequestHandler):
    def log_message(self, format: str, *arguments: Any) -> None:
        pass


def make_app(study: optuna.Study, paths: StudyPaths) -> Callable[..., Any]:
    """The dashboard as a WSGI application. Raises NasError where the study's settings cannot be read."""
    view = StudyView(study, paths)  # type: ignore[abstract]
    return optuna_dashboard.wsgi(view, artifact_store=view)


def serve(paths: StudyPaths, host: str, port: int, on_ready: Callable[[str], None]) -> None:
    """Until Ctrl-C. `on_ready` is told the address. Raises ConfigError where the port is taken."""
    study = open_study(paths)
    app = make_app(study, paths)
    try:
        server = wsgiref.simple_server.make_server(host, port, app, server_class=_Server, handler_class=_Quiet)
    except OSError as error:
        known = {errno.EADDRINUSE: "is in use", errno.EACCES: "needs permissions that you do not have"}
        if error.errno in known:
            other = port + 1 if port > 1023 else 8080
            raise ConfigError(f"port {port} of {host} {known[error.errno]}", hint=f"nas dashboard --port {other}") from None
        raise ConfigError(f"the dashboard cannot listen on {host}:{port}: {error.strerror}", hint="--host 127.0.0.1") from None
    with server:
        on_ready(f"http://{host}:{server.server_port}/dashboard/studies/{study._study_id}")
        with suppress(KeyboardInterrupt):
            server.serve_forever()
