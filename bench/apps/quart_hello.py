"""The same 13 bytes as quart-trio's users write it."""

from quart_trio import QuartTrio

app = QuartTrio(__name__)


@app.get("/")
async def hello() -> str:
    return "Hello, world!"
