"""Answering over HTTP: the only room that knows FastAPI; imported when something is served."""
