from channels.exceptions import DenyConnection
from channels.generic.websocket import AsyncJsonWebsocketConsumer, WebsocketConsumer
from django.utils.html import linebreaks, urlize


def render(text: str) -> str:
    """Make HTML of what somebody has typed: links are links, and markup is text."""
    return linebreaks(urlize(text[:1000], nofollow=True, autoescape=True))


class Room(AsyncJsonWebsocketConsumer):
    """Somebody in a room: takes ``{"text": ...}`` and sends what happens there."""

    name: str | None = None

    async def connect(self) -> None:
        self.name = self.scope["session"].get("name")
        if self.name is None:
            raise DenyConnection  # 403
        self.room = "room." + self.scope["url_route"]["kwargs"]["room"]
        await self.accept()
        await self.channel_layer.group_add(self.room, self.channel_name)
        await self.tell(came=True)

    async def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
        try:
            await super().receive(text_data, bytes_data)
        except (KeyError, TypeError, ValueError):
            # What leaves a consumer as an exception ends it without a disconnect.
            await self.close(4001, 'expected {"text": "..."}')

    async def receive_json(self, content: dict[str, str]) -> None:
        await self.tell(html=render(content["text"]))

    async def disconnect(self, code: int) -> None:
        if self.name is not None:
            await self.channel_layer.group_discard(self.room, self.channel_name)
            await self.tell(left=code)

    async def tell(self, **what: object) -> None:
        """Send something to everybody in the room: each one's ``told`` is called."""
        await self.channel_layer.group_send(self.room, {"type": "told", "name": self.name, **what})

    async def told(self, event: dict[str, object]) -> None:
        await self.send_json({key: value for key, value in event.items() if key != "type"})


class Preview(WebsocketConsumer):
    """What a text will look like. Django's own functions are synchronous, and so may be a consumer."""

    def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
        if bytes_data is not None:
            self.close(1003, "expected text")
        else:
            self.send(render(text_data or ""))
