"""The fault shape of Neutron."""
import orjson


def render(error, request_id, accept):
    """``{"NeutronError": {"type", "message", "detail"}}`` of an error."""
    detail = error.detail if isinstance(error.detail, str) else ''
    kind = 'HTTPNotFound' if error.kind == 'NotFound' else error.kind
    return orjson.dumps({'NeutronError': {'type': kind, 'message': error.message, 'detail': detail}}), 'application/json'
