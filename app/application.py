"""The service as an aiohttp application: who looks at a request, in which order, and what its handlers find."""

from __future__ import annotations

from aiohttp import web

from app.access.keeping import Keeping
from app.foundation import Foundation
from app.parts import Parts
from app.web import address, bodies, deeds, envelope, errors, guard, keys, live, longrequest, oidcpages, requests, routes, templates
from app.web.names import OwnNames
from app.web.proxy import Proxies


def create_app(foundation: Foundation) -> web.Application:
    """The service as an aiohttp application; its parts start and stop with it."""
    app = web.Application(
        middlewares=[
            envelope.log_requests,
            errors.answer_problems,
            deeds.write_down,
            guard.gate,
            deeds.recognise,
            address.utf8_only,
            bodies.read_within(),
        ],
        client_max_size=requests.MAX_BODY_BYTES,
    )
    app[keys.SETTINGS] = foundation.settings
    app[keys.OWN_NAMES] = OwnNames.of(foundation.settings.public_urls, tls=foundation.settings.tls)
    app[keys.PROXIES] = Proxies(foundation.settings)
    app[keys.ACCESS] = foundation.access
    if foundation.settings.auth == "oidc":
        from app.web.oidc import Provider  # with what it needs it takes half a second, which others need not wait

        app[oidcpages.PROVIDER] = Provider(foundation.settings.oidc)
    app[keys.KEEPING] = Keeping(foundation.state, foundation.access)
    templates.set_up(app, foundation.settings)
    live.set_up(app)
    longrequest.set_up(app)
    routes.add_to(app)
    app.on_response_prepare.append(envelope.add_headers)
    parts = Parts(foundation)
    parts.put_into(app)
    app.cleanup_ctx.append(parts.run)
    return app
