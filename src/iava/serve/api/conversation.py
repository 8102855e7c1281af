"""The messages of a request, turned into a conversation with images."""

from collections.abc import Sequence
from typing import Any

from iava.lvlm.conversation import Conversation
from iava.serve.api.access import RequestState
from iava.serve.api.schema import ChatMessage
from iava.serve.service import Service


async def read_messages(service: Service, messages: Sequence[ChatMessage], state: RequestState) -> Conversation:
    """Reads the messages of a request and their images.

    Raises:
        ApiError: 400 if a part is refused, 429 if the images that wait take too much memory, 504 if fetching takes too
            long.
    """
    turns, urls = [], []
    for number, message in enumerate(messages):
        parts: list[dict[str, Any]] = []
        for index, part in enumerate(message.content):
            if part.type == "image_url":
                urls.append((f"messages.{number}.content.{index}.image_url.url", part.image_url.url))
                parts.append({"type": "image"})
            else:
                parts.append({"type": "text", "text": part.text})
        turns.append({"role": "system" if message.role == "developer" else message.role, "content": parts})
    images = await service.images(urls, state.deadline, state.share.hold)
    return service.read(turns, images, "messages")
