"""A receiver of callbacks: it believes what is signed by its secret, and prints it."""

import os

from aiohttp import web
from standardwebhooks import Webhook

secret = Webhook(os.environ["CALLBACK_SECRET"])


async def ended(request: web.Request) -> web.Response:
    """Take what was sent."""
    event = secret.verify(await request.read(), dict(request.headers))  # raises WebhookVerificationError
    print(event["type"], event["data"]["id"], flush=True)
    return web.Response(status=204)


app = web.Application()
app.router.add_post("/ended", ended)
if __name__ == "__main__":
    web.run_app(app, host="127.0.0.1", port=8098)
