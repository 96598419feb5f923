"""An MCP server of 2025-06-18, by hand: what no SDK would send, over stdio.

Source: Model Context Protocol, 2025-06-18.
"""

from __future__ import annotations

import json
import sys

NOTHING = {"type": "object", "properties": {}}
tools = {
    "greet": {"description": "x" * 2000, "inputSchema": {"type": "object"}},
    "malformed": {"inputSchema": NOTHING},
    "liar": {"inputSchema": NOTHING, "outputSchema": {"type": "object", "required": ["sum"]}},
    "refused": {"inputSchema": NOTHING},
    "garbage": {"inputSchema": NOTHING},
    "grow": {"inputSchema": NOTHING},
    "leave": {"inputSchema": NOTHING},
    "wrong": {"inputSchema": {"type": "object", "properties": {"a": {"type": "nonsense"}}}},
}


def say(message: dict) -> None:
    print(json.dumps({"jsonrpc": "2.0", **message}), flush=True)


def call(request: int, name: str) -> None:
    if name == "malformed":
        say({"id": request, "result": {"content": "no list"}})
    elif name == "liar":
        say({"id": request, "result": {"content": [], "structuredContent": {"difference": 1}}})
    elif name == "refused":
        say({"id": request, "error": {"code": -32000, "message": "not on Mondays"}})
    elif name == "garbage":
        print("the caller said hello", flush=True)
        say({"id": request, "result": {"content": []}})
    elif name == "leave":
        sys.exit(0)
    else:
        if name == "grow":
            tools["dessert"] = {"inputSchema": NOTHING}
            say({"method": "notifications/tools/list_changed"})
        say({"id": request, "result": {"content": [{"type": "text", "text": name}]}})


for line in sys.stdin:
    message = json.loads(line)
    method, request, params = message["method"], message.get("id"), message.get("params", {})
    if method == "initialize":
        info = {"name": "old", "version": "1"}
        capabilities = {"tools": {"listChanged": True}}
        result = {"protocolVersion": "2025-06-18", "capabilities": capabilities, "serverInfo": info}
        say({"id": request, "result": result})
    elif method == "tools/list":
        start = int(params.get("cursor", 0))
        page = [{"name": name, **tool} for name, tool in list(tools.items())[start : start + 5]]
        more = {"nextCursor": str(start + 5)} if start + 5 < len(tools) else {}
        say({"id": request, "result": {"tools": page, **more}})
    elif method == "tools/call":
        call(request, params["name"])
    elif request is not None:
        say({"id": request, "error": {"code": -32601, "message": "Method not found"}})
