"""What a fault of a body repeats of it."""
import pytest

from kodiak.common import errors
from kodiak.common.api import schema

CHECK = schema.Validator(schema.obj({'auth_key': {'type': 'string', 'maxLength': 4}, 'name': {'type': 'string'}}, ['auth_key']))


@pytest.mark.parametrize('sent, said', [
    ({}, "body: 'auth_key' is a required property"),
    ({'name': 'x'}, "body: 'auth_key' is a required property"),
    ({'auth_key': 'secret'}, 'auth_key: it breaks the rule "maxLength"'),
    ({'auth_key': 'a', 'name': 7}, "name: 7 is not of type 'string'"),
])
def test_what_is_missing_is_named_and_no_secret_is_repeated(sent, said):
    with pytest.raises(errors.BadRequest) as caught:
        CHECK(sent)
    assert caught.value.message == 'Invalid input for field/attribute ' + said and 'secret' not in str(caught.value)
