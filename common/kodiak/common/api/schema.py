"""JSON Schema: shorthands for declarations, and validators whose errors name the field.

fastjsonschema compiles a schema to Python (6 us a body, where jsonschema takes 156). It is compiled at its first
use: a service has hundreds of schemas, and a process meets few of them.
"""
import ipaddress
import re
import threading

import fastjsonschema

from .. import errors
from ..numbers import natural  # noqa: F401 (services take it from here)

UUID = {'type': 'string', 'format': 'uuid'}
STRING = {'type': 'string'}
NAME = {'type': 'string', 'minLength': 1, 'maxLength': 255}
TEXT = {'type': ['string', 'null']}
BOOLEAN = {'type': 'boolean'}
INTEGER = {'type': 'integer'}
TIME = {'type': 'string'}
ANY = {}


def obj(properties, required=(), extra=False, **more):
    """An object schema; ``extra`` says what becomes of properties that are not listed."""
    schema = {'type': 'object', 'properties': properties, 'additionalProperties': extra, **more}
    if required:
        schema['required'] = list(required)
    return schema


def wrap(key, schema):
    """``{key: schema}``, as most OpenStack bodies are: one object under its resource's name."""
    return {'type': 'object', 'properties': {key: schema}, 'required': [key], 'additionalProperties': False}


def array(items, **more):
    """An array schema."""
    return {'type': 'array', 'items': items, **more}


def nullable(schema):
    """``schema`` or null."""
    kinds = schema.get('type')
    if isinstance(kinds, str) and 'enum' not in schema:
        return {**schema, 'type': [kinds, 'null']}
    return {'anyOf': [schema, {'type': 'null'}]}


def _is_ip(version):
    def check(value):
        try:
            return ipaddress.ip_address(value).version == version
        except ValueError:
            return False
    return check


def _is_cidr(value):
    try:
        ipaddress.ip_network(value, strict=False)
        return '/' in value
    except ValueError:
        return False


FORMATS = {
    'uuid': r'^(?:[0-9a-fA-F]{8}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{12}|[0-9a-fA-F]{32})$',
    'ipv4': _is_ip(4), 'ipv6': _is_ip(6), 'cidr': _is_cidr,
    'ip': lambda value: _is_ip(4)(value) or _is_ip(6)(value),
    'mac': r'^(?:[0-9a-fA-F]{2}:){5}[0-9a-fA-F]{2}$',
    'base64': r'^(?:[A-Za-z0-9+/\s]{4})*(?:[A-Za-z0-9+/\s]{2}==|[A-Za-z0-9+/\s]{3}=)?\s*$',
    'boolean-like': r'^(?i:true|false|1|0|yes|no|on|off|t|f|y|n)$',
    'integer-like': r'^-?\d+$',
}


class Validator:
    """A compiled schema. Calling it returns the value (with defaults filled in) or raises ``BadRequest``."""

    def __init__(self, schema):
        self.schema = schema
        self._compiled = None
        self._lock = threading.Lock()

    def __call__(self, value):
        if self._compiled is None:
            with self._lock:
                if self._compiled is None:
                    self._compiled = fastjsonschema.compile(self.schema, formats=FORMATS, use_default=True,
                                                            detailed_exceptions=True)
        try:
            return self._compiled(value)
        except fastjsonschema.JsonSchemaValueException as error:
            raise self._explained(value, error) from None

    def _explained(self, value, error):
        # The compiled schema says quickly that a value is wrong; jsonschema says best what is wrong with it.
        best = jsonschema_error(self.schema, value)
        field = '.'.join(str(part) for part in best.absolute_path) if best else '.'.join(map(str, error.path[1:]))
        message = best.message if best else error.message
        # What is missing has a name, and no value that could be a secret.
        if not (best and best.validator == 'required') and (
                SECRET.search(field) or (SECRET.search(message) and isinstance(error.value, dict))):
            message = f'it breaks the rule "{best.validator if best else error.rule}"'
        shown = f'Invalid input for field/attribute {field or "body"}: {message}'
        return errors.BadRequest(shown[:1000], kind='ValidationError', detail={
            'message': message[:1000], 'validator': best.validator if best else error.rule, 'field': field})


SECRET = re.compile(r'pass|secret|user_data|auth', re.I)


def jsonschema_error(schema, value):
    """jsonschema's best explanation of why ``value`` breaks ``schema``, or None if it sees no fault."""
    # Imported where it is needed: most processes never meet a wrong body, and it costs 10 MB.
    import jsonschema
    checker = jsonschema.FormatChecker(formats=())
    for name, check in FORMATS.items():
        test = check if callable(check) else re.compile(check).match
        checker.checks(name)(lambda text, test=test: not isinstance(text, str) or bool(test(text)))
    return jsonschema.exceptions.best_match(jsonschema.Draft202012Validator(schema, format_checker=checker).iter_errors(value))


TRUE = {'true', '1', 'yes', 'on', 't', 'y'}
FALSE = {'false', '0', 'no', 'off', 'f', 'n'}


def boolean(text, field):
    """The boolean that a query string's text means; ``BadRequest`` names the field otherwise."""
    if isinstance(text, bool):
        return text
    lowered = str(text).strip().lower()
    if lowered in TRUE:
        return True
    if lowered in FALSE:
        return False
    raise errors.BadRequest(f"Invalid value '{text}' for {field}: it must be true or false.")


def integer(text, field, minimum=None, maximum=None):
    """The integer that a query string's text means; ``BadRequest`` names the field otherwise."""
    try:
        value = int(text)
    except (TypeError, ValueError):
        raise errors.BadRequest(f"Invalid value '{text}' for {field}: it must be an integer.")
    if (minimum is not None and value < minimum) or (maximum is not None and value > maximum):
        raise errors.BadRequest(f"Invalid value '{text}' for {field}: it must be at least {minimum}."
                                if minimum is not None and value < minimum else
                                f"Invalid value '{text}' for {field}: it must be at most {maximum}.")
    return value


class Query:
    """The declared parameters of a query string.

    :param properties: name to JSON Schema. ``array`` collects every occurrence, other types take the last.
    :param strict: refuse undeclared names, instead of keeping them as text.
    """

    def __init__(self, properties, strict=False):
        self.properties = properties
        self.strict = strict
        # Booleans and integers are converted below; only what says more needs a validator.
        self._checks = {name: Validator(declared) for name, declared in properties.items()
                        if declared.get('type') == 'string' and len(declared) > 1}

    def __call__(self, arguments):
        """The values of werkzeug's MultiDict ``arguments``, typed, as a dictionary."""
        values = {}
        for name, texts in arguments.lists():
            declared = self.properties.get(name)
            if declared is None:
                if self.strict:
                    raise errors.BadRequest('Invalid query string parameters: Additional properties are not allowed '
                                            f"('{name}' was unexpected)")
                values[name] = texts[-1] if len(texts) == 1 else texts
                continue
            values[name] = self._value(name, declared, texts)
        return values

    def _value(self, name, declared, texts):
        kind, text = declared.get('type'), texts[-1]
        if kind == 'array':
            return texts
        if kind == 'boolean':
            return boolean(text, name)
        if kind == 'integer':
            return integer(text, name, declared.get('minimum'), declared.get('maximum'))
        if name in self._checks:
            try:
                self._checks[name](text)
            except errors.BadRequest:
                raise errors.BadRequest(f"Invalid query string parameters: invalid value '{text}' for {name}.") from None
        return text
