"""The sample application: serves whatever image classifier the manifest of its model describes. Knows nothing of ``deploy``."""

from __future__ import annotations

import os
import sys

from flask import Flask

from app import bundle, classifier, problems, telemetry
from app.bundle import ModelError
from app.patience import Room
from app.routes import Service, blueprint
from app.scoring import Scorer
from app.settings import Settings
from app.turns import Turns

EXIT_BAD_MODEL = 3


def create_app(settings: Settings | None = None) -> Flask:
    """Load the model and return the application that serves it.

    Called by gunicorn without settings: they are then read from the environment, and a model that cannot be served ends the
    process with one line on stderr.

    Raises:
        ModelError: Settings were given and the model cannot be served.
    """
    if settings is not None:
        return _assemble(settings)
    try:
        return _assemble(Settings.from_environment(os.environ))
    except ModelError as error:
        sys.stderr.write(f"app: bad model: {error}\n")
        sys.exit(EXIT_BAD_MODEL)


def _assemble(settings: Settings) -> Flask:
    loaded = classifier.load(bundle.read(settings.model_dir))
    service = Service(
        settings=settings,
        bundle=loaded.bundle,
        scorer=Scorer(loaded, settings),
        telemetry=telemetry.Telemetry(loaded.bundle),
        room=Room(settings.max_held_bytes),
        turns=_turns(settings),
    )
    app = Flask(__name__, static_folder=None)
    app.config.update(MAX_CONTENT_LENGTH=settings.max_body_bytes, PROVIDE_AUTOMATIC_OPTIONS=False)
    # A path is served as it is written or not at all; merging slashes would answer with a redirect page.
    app.url_map.merge_slashes = False
    app.json.sort_keys = False  # type: ignore[attr-defined]  # the default provider has it, its base class does not
    app.extensions["service"] = service
    telemetry.register(app, service.telemetry, access_log=settings.access_log)
    problems.register(app)
    app.register_blueprint(blueprint(service))
    return app


def _turns(settings: Settings) -> Turns:
    # The other threads are for reading requests, and for telling whether the replica is well.
    most = max(1, settings.threads // 2)
    # More requests than this decoding at once would each take longer and hold their pixels for longer.
    slots = min(most, settings.slots or len(os.sched_getaffinity(0)))
    return Turns(slots, most - slots)
