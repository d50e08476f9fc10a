"""The description of a server's interface by OpenAPI 3.1."""

from __future__ import annotations

from typing import Any

from mgc.models.service.service import Service
from mgc.pipeline.versions import versions

_ANSWER = "#/components/schemas/Answer"
_PROBLEM = "#/components/schemas/Problem"
#: Status codes of `/predict` other than 200, and when they are given.
_PROBLEMS = {
    "400": "No file in the body, or a parameter out of its range",
    "401": "Token missing or wrong",
    "403": "Sent by a page of another site",
    "408": "The body did not arrive in time",
    "413": "The body is too large",
    "415": "Content-Type of no audio",
    "422": "The file cannot be used; `reason` is that of `mgc predict`",
    "429": "Too many requests wait; Retry-After says when to try again",
    "500": "A fault of the server",
    "503": "The server stops, or cannot decode",
    "504": "Decoding took too long",
}


def describe(service: Service) -> dict[str, Any]:
    """Return the OpenAPI document of a server as plain values."""
    return {
        "openapi": "3.1.0",
        "info": {
            "title": f"Genres by {service.model}",
            "description": " ".join([f"Run {service.run}; genres: {', '.join(service.classes)}.", *service.notes]),
            "version": versions(["mgc"])["mgc"] or "0",
        },
        "paths": {
            "/": {
                "get": _operation("page", "A page for people", {"200": _content("The page", "text/html", _string())})
            },
            "/predict": {"post": _predict(service)},
            "/healthz": {
                "get": _operation(
                    "health",
                    "Whether the server takes requests",
                    {
                        "200": _json("It does", "#/components/schemas/Health"),
                        "503": _json("It is stopping", "#/components/schemas/Health"),
                    },
                )
            },
            "/metrics": {
                "get": _operation(
                    "metrics",
                    "Metrics in the text format of Prometheus",
                    {"200": _content("The metrics", "text/plain", _string()), "401": _json(_PROBLEMS["401"], _PROBLEM)},
                )
            },
            "/openapi.json": {
                "get": _operation(
                    "description",
                    "This document",
                    {"200": _content("The document", "application/json", {"type": "object"})},
                )
            },
        },
        "components": {
            "schemas": _schemas(service),
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
        },
    }


def _predict(service: Service) -> dict[str, Any]:
    """Describe `POST /predict`."""
    binary: dict[str, Any] = {"schema": {}}
    form = {
        "type": "object",
        "required": ["file"],
        "properties": {"file": {"type": "string", "contentMediaType": "application/octet-stream"}},
    }
    limits = service.limits
    responses = {"200": _json("The genres", _ANSWER)}
    responses |= {status: _json(words, _PROBLEM) for status, words in _PROBLEMS.items()}
    return _operation("predict", "Genres of an audio file", responses) | {
        "description": (
            f"At most {limits.max_bytes / 1e6:g} MB, {limits.max_duration:g} s of audio, and {limits.timeout_s:g} s."
        ),
        "security": [{}, {"token": []}],
        "parameters": [
            _parameter("top_k", {"type": "integer", "minimum": 1, "default": 3}, "Genres in `top`"),
            _parameter("timeline", {"type": "boolean", "default": False}, "Add the probabilities in each second"),
        ],
        "requestBody": {
            "required": True,
            "content": {
                "multipart/form-data": {"schema": form},
                "audio/*": binary,
                "video/*": binary,
                "application/octet-stream": binary,
                "application/ogg": binary,
            },
        },
    }


def _schemas(service: Service) -> dict[str, Any]:
    """Describe the JSON answers."""
    probability = {"type": "number", "minimum": 0, "maximum": 1}
    genre = {"type": "string", "enum": list(service.classes)}
    shares = _object(dict.fromkeys(service.classes, probability))
    answer = {
        "file": {"type": ["string", "null"], "description": "name of the file, as the client gave it"},
        "duration_s": {"type": "number"},
        "detail": {"type": ["string", "null"], "description": "what is odd about the file"},
        "genre": {
            "type": ["string", "null"],
            "enum": [*service.classes, None],
            "description": "the most probable genre; null if it is none of these, which needs `mgc serve --unknown`",
        },
        "top": {"type": "array", "items": _object({"genre": genre, "probability": probability})},
        "probabilities": shares,
        "strange": {"type": "boolean", "description": "it is unlike all music that the model has learnt from"},
        "timeline": {
            "type": "array",
            "items": _object({"start_s": {"type": "integer", "minimum": 0}, "probabilities": shares}),
        },
        "unknown": {
            "const": service.naming.unknown,
            "description": "probability below which no genre is named; above 0, neither is that of a strange file",
        },
        "temperature": {
            "const": service.temperature,
            "description": "temperature that calibrates the probabilities, 1 if validation tracks tell no better one; "
            "null without `mgc serve --calibrated`",
        },
        "model": {"const": service.model},
        "run": {"const": service.run},
        "leaky": {"type": "boolean", "description": "the scores of the run are too good: its test tracks were known"},
    }
    health = {"status": {"enum": ["ok", "stopping"]}, "model": _string(), "run": _string()}
    problem = {
        "error": _string(),
        "remedy": _string(),
        "reason": {"type": "string", "description": "reason word of `mgc extract`, such as not-audio or too-short"},
        "detail": {"type": ["string", "null"]},
    }
    return {
        "Answer": _object(answer, optional=["timeline"]),
        "Health": _object(health, optional=["model", "run"]),
        "Problem": _object(problem, optional=["reason", "detail"]),
    }


def _object(properties: dict[str, Any], optional: list[str] | None = None) -> dict[str, Any]:
    required = [name for name in properties if name not in (optional or ())]
    return {"type": "object", "required": required, "properties": properties, "additionalProperties": False}


def _operation(name: str, summary: str, responses: dict[str, Any]) -> dict[str, Any]:
    return {"operationId": name, "summary": summary, "responses": responses}


def _parameter(name: str, schema: dict[str, Any], description: str) -> dict[str, Any]:
    return {"name": name, "in": "query", "schema": schema, "description": description}


def _json(description: str, schema: str) -> dict[str, Any]:
    return _content(description, "application/json", {"$ref": schema})


def _content(description: str, kind: str, schema: dict[str, Any]) -> dict[str, Any]:
    return {"description": description, "content": {kind: {"schema": schema}}}


def _string() -> dict[str, Any]:
    return {"type": "string"}
