import os
from contextlib import suppress

from django.core.asgi import get_asgi_application

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "chat.settings")
http = get_asgi_application()  # before the consumers are imported: it sets Django up

from channels.auth import AuthMiddlewareStack  # noqa: E402
from channels.routing import ProtocolTypeRouter, URLRouter  # noqa: E402
from channels.security.websocket import AllowedHostsOriginValidator, WebsocketDenier  # noqa: E402
from django.urls import re_path  # noqa: E402

from .consumers import Preview, Room  # noqa: E402
from .urls import ROOM  # noqa: E402


def until_disconnect(application):
    """Let a consumer end by its ``disconnect``.

    To send something to a client that has just gone is an OSError in ASGI, and whatever a consumer raises
    ends it at once: it would stay in its groups (https://github.com/django/channels/issues/1466).
    """

    async def patient(scope, receive, send):
        async def send_if_open(event):
            with suppress(OSError):
                await send(event)

        await application(scope, receive, send_if_open)

    return patient


websockets = URLRouter(
    [
        re_path(ROOM, Room.as_asgi()),
        re_path("^preview/$", Preview.as_asgi()),
        re_path("", WebsocketDenier.as_asgi()),  # 403
    ]
)

application = ProtocolTypeRouter(
    {
        "http": http,
        # No page of another site may open a WebSocket with the session of its visitor.
        "websocket": AllowedHostsOriginValidator(until_disconnect(AuthMiddlewareStack(websockets))),
    }
)
