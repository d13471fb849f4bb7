"""The fault shape of the identity API."""
import flask
import orjson


def fault(error, request_id, accept):
    """``{"error": {"code", "message", "title"}}``, and what an error adds to it beside (receipts)."""
    body = {'error': {'code': error.code, 'message': error.message, 'title': error.title}}
    if error.code == 401:
        error.headers.setdefault('WWW-Authenticate', f'Keystone uri="{flask.request.host_url.rstrip("/")}/v3"')
    if error.detail:
        body.update(error.detail)
    return orjson.dumps(body), 'application/json'


#: JSON Schema of a fault. OAuth 2.0 has a form of its own, in which ``error`` is a word.
SCHEMA = {'type': 'object', 'required': ['error'], 'properties': {'error': {'anyOf': [
    {'type': 'string'},
    {'type': 'object', 'required': ['code', 'message', 'title'], 'properties': {
        'code': {'type': 'integer'}, 'message': {'type': 'string'}, 'title': {'type': 'string'}}}]}}}
