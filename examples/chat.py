"""A chat: run it, and open http://localhost:8001/Ada and /Bob in two windows. See docs/tutorial.md."""

import asyncio
import os
from urllib.parse import unquote

from wsframe import Response
from wsframe.aio import broadcast, serve

PAGE = b"""<!doctype html>
<title>Chat</title>
<form><input autofocus></form><pre></pre>
<script>
  const input = document.querySelector("input"), log = document.querySelector("pre")
  const ws = new WebSocket(location.href.replace("http", "ws"))
  ws.onmessage = event => log.append(event.data, "\\n")
  ws.onclose = event => log.append("closed with ", event.code, " ", event.reason, "\\n")
  document.forms[0].onsubmit = event => { event.preventDefault(); ws.send(input.value); input.value = "" }
</script>"""
people = {}  # name -> WebSocket


def page(request):
    return None if request.is_upgrade else Response(200, [("Content-Type", "text/html; charset=utf-8")], PAGE)


def tell(text):
    broadcast(people.values(), text, slow="close")


async def chat(ws):
    name = unquote(ws.path[1:])
    if not 0 < len(name) <= 20 or name in people:
        await ws.close(4000, "choose another name")
        return
    people[name] = ws
    try:
        tell(f"{name} is here")
        async for message in ws:
            tell(f"{name}: {message}")
    finally:
        del people[name]
        tell(f"{name} has left")


async def main():
    port = int(os.environ.get("PORT", 8001))
    async with serve(chat, "localhost", port, process_request=page, max_message_size=1000) as server:
        print(f"http://localhost:{server.port}/Ada", flush=True)
        await server.serve_forever()


asyncio.run(main())
