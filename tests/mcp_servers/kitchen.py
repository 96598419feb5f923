"""An MCP server made with the official SDK: over stdio, or with a port over HTTP."""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path

from mcp.server.mcpserver import Context, Image, MCPServer
from mcp.server.mcpserver.exceptions import ToolError
from mcp.types import CallToolResult, TextContent

server = MCPServer("kitchen", log_level="CRITICAL")
NOTES = Path(os.environ["NOTES"]) if "NOTES" in os.environ else None


def note(text: str) -> None:
    if NOTES is not None:
        with NOTES.open("a") as file:
            file.write(f"{text}\n")


@server.tool()
async def price(dish: str, people: int = 1) -> str:
    """What a dish costs."""
    note(f"price {dish}")
    return f"{dish} for {people}: {9 * people} euros"


@server.tool()
async def stock() -> dict[str, int]:
    """What there is."""
    return {"pizza": 3}


@server.tool(structured_output=False)
async def both() -> CallToolResult:
    """Text and more."""
    return CallToolResult(content=[TextContent(type="text", text="two found")], structured_content={"found": [1, 2]})


@server.tool()
async def picture() -> Image:
    """A picture of it."""
    return Image(data=b"\x89PNG", format="png")


@server.tool()
async def burn() -> str:
    """Fails."""
    raise ToolError("the oven is cold")


@server.tool(name="menu.of/the day")
async def menu() -> str:
    """Today's menu."""
    return "soup"


@server.tool()
async def hang() -> str:
    """Never answers."""
    note("hang begun")
    try:
        await asyncio.sleep(3600)
    finally:
        note("hang ended")
    return ""


@server.tool()
async def crash(once: str = "") -> str:
    """Takes the server down; with a file in ``once``, only if it is not there yet."""
    note("crash")
    if once and Path(once).exists():
        return "standing"
    if once:
        Path(once).touch()
    os._exit(3)


@server.tool()
async def who() -> str:
    """The server's process."""
    return str(os.getpid())


@server.tool()
async def grow(ctx: Context) -> str:
    """Gains a tool."""

    async def dessert() -> str:
        """Dessert."""
        return "tiramisu"

    server.add_tool(dessert)
    await ctx.notify_tools_changed()
    return "grown"


if __name__ == "__main__":
    if len(sys.argv) > 1:
        server.run("streamable-http", port=int(sys.argv[1]))
    else:
        server.run("stdio")
