"""Retention and legal holds of objects: how S3 says them, and how they are kept (``MODE until``, ``ON`` or ``OFF``)."""
import re
import time

from ..middleware.s3_guard import HOLD, RETENTION
from .errors import S3Error
from .xml import iso, moment_of, parse_xml

VERSION = re.compile(r'[0-9]{10}\.[0-9]{5}\Z')
MODE, UNTIL, HELD = 'X-Amz-Object-Lock-Mode', 'X-Amz-Object-Lock-Retain-Until-Date', 'X-Amz-Object-Lock-Legal-Hold'
MODES = ('GOVERNANCE', 'COMPLIANCE')


def wanted(info):
    """Raises where a bucket has no object lock."""
    if 's3api-lock' not in info['sysmeta']:
        raise S3Error('InvalidRequest', 'Bucket is missing Object Lock Configuration')


def _retention(mode, until):
    if mode not in MODES:
        raise S3Error('MalformedXML')
    moment = moment_of(until or '')
    if moment is None:
        raise S3Error('MalformedXML')
    if moment <= time.time():
        raise S3Error('InvalidArgument', 'The retain until date must be in the future!', ArgumentName='RetainUntilDate',
                      ArgumentValue=until)
    return f'{mode} {iso(moment)}'


def of_request(call, info):
    """The headers of the Swift API that a PUT's headers ask for."""
    get, headers = call.request.headers.get, {}
    mode, until, held = get(MODE), get(UNTIL), get(HELD)
    if mode or until or held:
        wanted(info)
    if mode or until:
        if not (mode and until):
            raise S3Error('InvalidArgument', 'x-amz-object-lock-retain-until-date and x-amz-object-lock-mode must both be supplied')
        if mode not in MODES or moment_of(until) is None:
            raise S3Error('InvalidArgument', 'Unknown wormMode directive or retain until date')
        headers[RETENTION] = _retention(mode, until)
    if held:
        if held not in ('ON', 'OFF'):
            raise S3Error('InvalidArgument', 'Legal Hold must be either of ON or OFF')
        headers[HOLD] = held
    return headers


def retention_of_xml(data):
    """The header of a ``Retention``; '' for one that takes it away."""
    root = parse_xml(data, 'Retention')
    if len(root) == 0:
        return ''
    return _retention(root.findtext('Mode'), root.findtext('RetainUntilDate'))


def hold_of_xml(data):
    """The header of a ``LegalHold``."""
    status = parse_xml(data, 'LegalHold').findtext('Status')
    if status not in ('ON', 'OFF'):
        raise S3Error('MalformedXML')
    return status


def may_change(headers, made, bypass):
    """Whether a retention may become another: longer always; anything else where it is over, or governance is passed over."""
    mode, _, until = (headers.get(RETENTION) or '').partition(' ')
    if not until or (moment_of(until) or 0) <= time.time() or (bypass and mode == 'GOVERNANCE'):
        return True
    new, _, later = made.partition(' ')
    return bool(later) and moment_of(later) >= moment_of(until) and new == mode


def shown(headers):
    """S3's headers of an object's."""
    made = {}
    mode, _, until = (headers.get(RETENTION) or '').partition(' ')
    if until:
        made.update({MODE: mode, UNTIL: until})
    if headers.get(HOLD):
        made[HELD] = headers[HOLD]
    return made
