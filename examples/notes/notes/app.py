# SPDX-License-Identifier: Apache-2.0
"""The web application: a page for people, a JSON API, health, and endpoints that take their time."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import parse_qs
from uuid import UUID, uuid4

from fastapi import FastAPI, HTTPException, Query, Request, WebSocket, WebSocketDisconnect
from fastapi.responses import (
    HTMLResponse,
    JSONResponse,
    PlainTextResponse,
    RedirectResponse,
    Response,
    StreamingResponse,
)
from fastapi.staticfiles import StaticFiles
from jinja2 import Environment, FileSystemLoader
from pydantic import BaseModel, Field

from . import logs, security
from .database import Database, Unavailable
from .gate import Gate
from .settings import Settings, from_environment

log = logging.getLogger("notes")

HERE = Path(__file__).parent
TEXT_LIMIT = 500
FORM_LIMIT = 8192
SHOWN = 20
COOKIE = "notes_visitor"
Seconds = Annotated[float, Query(ge=0, le=300)]


class NewNote(BaseModel):
    """Body of POST /api/notes. The client makes the id, so that sending twice stores once."""

    id: UUID
    text: str = Field(min_length=1, max_length=TEXT_LIMIT)


class NewJob(BaseModel):
    """Body of POST /api/jobs. As with notes the client makes the id; ``seconds`` is how long the work takes."""

    id: UUID
    seconds: float = Field(default=1.0, ge=0, le=300)


def create_app(settings: Settings | None = None) -> FastAPI:
    """The application of one worker process; settings come from the environment unless given."""
    settings = settings or from_environment(os.environ)
    logs.configure(settings)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        async with Database(settings) as database:
            app.state.database = database
            log.info("serving", extra={"port": settings.port, "workers": settings.workers})
            yield
            log.info("stopping")

    app = FastAPI(title="Notes", lifespan=lifespan, docs_url=None, redoc_url=None, openapi_url=None)
    app.state.settings = settings
    app.mount("/static", StaticFiles(directory=HERE / "static"), name="static")
    app.add_exception_handler(Unavailable, _unavailable)
    _add_health(app, settings)
    _add_api(app)
    _add_page(app, settings)
    _add_slow(app, settings)
    app.add_middleware(Gate, settings=settings)
    return app


async def _unavailable(_: Request, error: Exception) -> Response:
    log.warning("database unavailable", extra={"reason": str(error)})
    return PlainTextResponse("The database does not answer just now.\n", status_code=503, headers={"Retry-After": "2"})


def _database(app: FastAPI) -> Database:
    database: Database = app.state.database
    return database


def _add_health(app: FastAPI, settings: Settings) -> None:
    identity = {"release": settings.release, "colour": settings.colour}

    @app.get("/healthz")
    async def healthz() -> Response:
        return JSONResponse({"status": "ok", **identity})

    @app.get("/readyz")
    async def readyz() -> Response:
        reason = "FAIL_READY is set: never ready, on purpose" if settings.fail_ready else None
        reason = reason or await _database(app).readiness()
        if reason:
            log.warning("not ready", extra={"reason": reason})
            return JSONResponse({"status": "not ready", "reason": reason, **identity}, status_code=503)
        return JSONResponse({"status": "ready", **identity})


def _add_api(app: FastAPI) -> None:
    @app.post("/api/notes")
    async def add(note: NewNote) -> Response:
        created = await _database(app).add(note.id, note.text)
        return JSONResponse({"id": str(note.id), "created": created}, status_code=201 if created else 200)

    @app.get("/api/notes/{note_id}")
    async def get(note_id: UUID) -> Response:
        note = await _database(app).get(note_id)
        if note is None:
            raise HTTPException(404, "no such note")
        return JSONResponse({"id": str(note.id), "text": note.text, "created_at": note.created_at.isoformat()})

    @app.get("/api/count")
    async def count() -> Response:
        return JSONResponse((await _database(app).count())._asdict())

    @app.post("/api/jobs")
    async def enqueue(job: NewJob) -> Response:
        created = await _database(app).enqueue(job.id, job.seconds)
        return JSONResponse({"id": str(job.id), "created": created}, status_code=201 if created else 200)

    @app.get("/api/jobs")
    async def jobs() -> Response:
        return JSONResponse((await _database(app).jobs())._asdict())


def _add_page(app: FastAPI, settings: Settings) -> None:
    templates = Environment(loader=FileSystemLoader(HERE / "templates"), autoescape=True, auto_reload=False)
    page = templates.get_template("index.html")

    @app.get("/")
    async def index(request: Request) -> Response:
        visitor = security.known_visitor(request.cookies.get(COOKIE)) or security.new_visitor()
        notes, count = await asyncio.gather(_database(app).newest(SHOWN), _database(app).count())
        body = page.render(
            notes=notes,
            total=count.notes,
            settings=settings,
            limit=TEXT_LIMIT,
            token=security.form_token(settings.secret_key, visitor),
        )
        response = HTMLResponse(body, headers={"Cache-Control": "no-store"})
        response.set_cookie(COOKIE, visitor, httponly=True, samesite="lax", secure=request.url.scheme == "https")
        return response

    @app.post("/notes")
    async def submit(request: Request) -> Response:
        form = parse_qs(await _limited_body(request), keep_blank_values=True)
        token, text = form.get("token", [""])[0], form.get("text", [""])[0].strip()
        if not security.token_fits(settings.secret_key, security.known_visitor(request.cookies.get(COOKIE)), token):
            raise HTTPException(403, "this form did not come from our page, or cookies are off: reload and try again")
        if not 1 <= len(text) <= TEXT_LIMIT:
            raise HTTPException(422, f"a note has 1 to {TEXT_LIMIT} characters")
        await _database(app).add(uuid4(), text)
        return RedirectResponse("/", status_code=303)


async def _limited_body(request: Request) -> str:
    body = b""
    async for chunk in request.stream():
        body += chunk
        if len(body) > FORM_LIMIT:
            raise HTTPException(413, f"a form has at most {FORM_LIMIT} bytes")
    return body.decode("utf-8", "replace")


def _add_slow(app: FastAPI, settings: Settings) -> None:
    @app.get("/slow")
    async def slow(seconds: Seconds = 20) -> Response:
        await asyncio.sleep(seconds)
        return JSONResponse({"slept": seconds, "release": settings.release})

    @app.get("/stream")
    async def stream(seconds: Seconds = 10) -> Response:
        async def lines() -> AsyncIterator[str]:
            for tick in range(max(1, round(seconds * 2))):
                yield f"{tick} {settings.release}\n"
                await asyncio.sleep(0.5)
            yield "end\n"

        return StreamingResponse(lines(), media_type="text/plain")

    @app.websocket("/ws")
    async def websocket(socket: WebSocket) -> None:
        await socket.accept()
        ticker = asyncio.create_task(_tick(socket, settings))
        try:
            while True:
                await socket.send_json({"echo": await socket.receive_text()})
        except WebSocketDisconnect:
            pass
        finally:
            ticker.cancel()


async def _tick(socket: WebSocket, settings: Settings) -> None:
    tick = 0
    message: dict[str, Any] = {"release": settings.release, "colour": settings.colour}
    while True:
        await socket.send_json({**message, "tick": tick})
        tick += 1
        await asyncio.sleep(1)
