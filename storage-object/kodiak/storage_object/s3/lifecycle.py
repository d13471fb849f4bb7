"""When objects go by themselves: a bucket's lifecycle configuration, and which of its rules an object falls under."""
import math
import uuid
from email.utils import formatdate
from xml.etree import ElementTree

from kodiak.common.numbers import natural

from ..proxy.http import quote
from .errors import S3Error
from .tagging import _checked
from .xml import XMLNS, moment_of, parse_xml

DAY = 86400
KNOWN = {'ID', 'Status', 'Filter', 'Prefix', 'Expiration', 'NoncurrentVersionExpiration', 'AbortIncompleteMultipartUpload'}
MOVES = {'Transition', 'NoncurrentVersionTransition'}


def _days(text, least=1):
    number = natural(text or '')
    if number is None or number < least:
        raise S3Error('InvalidArgument', "'Days' for Expiration action must be a positive integer")
    return number


class Rule:
    """One rule. ``days`` or ``date``: when a current object goes; ``marker``: whether marks of deletion that stand alone go;
    ``noncurrent`` days and ``keep`` newer ones: of what is not current; ``abort`` days: of uploads never completed."""

    def __init__(self, element):
        tags = {e.tag for e in element}
        if tags & MOVES:
            raise S3Error('InvalidStorageClass')
        if tags - KNOWN or element.findtext('Status') not in ('Enabled', 'Disabled') or ('Prefix' in tags) == ('Filter' in tags):
            raise S3Error('MalformedXML')
        self.id = element.findtext('ID') or ''
        if len(self.id) > 255:
            raise S3Error('InvalidArgument', 'ID length should not exceed allowed limit of 255')
        self.enabled = element.findtext('Status') == 'Enabled'
        place = element.find('Filter') if 'Filter' in tags else element
        both = place.find('And') if 'Filter' in tags else None
        place = both if both is not None else place
        if 'Filter' in tags and both is None and len(place) > 1:
            raise S3Error('MalformedXML')
        self.prefix = place.findtext('Prefix') or ''
        self.tags = [(e.findtext('Key') or '', e.findtext('Value') or '') for e in place.findall('Tag') if place is not element]
        _checked(self.tags, 10)
        larger, smaller = (place.findtext(name) if place is not element else None for name in (
            'ObjectSizeGreaterThan', 'ObjectSizeLessThan'))
        self.larger = _days(larger, 0) if larger is not None else -1
        self.smaller = _days(smaller) if smaller is not None else math.inf
        self._read(element, tags)

    def _read(self, element, tags):
        self.days = self.date = self.noncurrent = self.abort = None
        self.marker, self.keep = False, 0
        end = element.find('Expiration')
        if end is not None:
            kinds = {e.tag for e in end}
            if len(kinds) != 1 or kinds - {'Days', 'Date', 'ExpiredObjectDeleteMarker'}:
                raise S3Error('MalformedXML')
            if 'Days' in kinds:
                self.days = _days(end.findtext('Days'))
            elif 'Date' in kinds:
                self.date = moment_of(end.findtext('Date') or '')
                if self.date is None or self.date % DAY:
                    raise S3Error('InvalidArgument', "'Date' must be at midnight GMT")
            else:
                self.marker = end.findtext('ExpiredObjectDeleteMarker') == 'true'
        older = element.find('NoncurrentVersionExpiration')
        if older is not None:
            self.noncurrent = _days(older.findtext('NoncurrentDays'))
            self.keep = _days(older.findtext('NewerNoncurrentVersions') or '0', 0)
        unfinished = element.find('AbortIncompleteMultipartUpload')
        if unfinished is not None:
            self.abort = _days(unfinished.findtext('DaysAfterInitiation'))
            if self.tags:
                raise S3Error('InvalidRequest', 'AbortIncompleteMultipartUpload cannot be specified with Tags')
        if not tags & {'Expiration', 'NoncurrentVersionExpiration', 'AbortIncompleteMultipartUpload'}:
            raise S3Error('InvalidRequest', 'At least one action needs to be specified in a rule')

    def covers(self, name, size, tags):
        """Whether it speaks of an object; ``tags``: a function, asked only if it matters."""
        return self.enabled and name.startswith(self.prefix) and self.larger < size < self.smaller and (
            not self.tags or set(self.tags) <= set(tags()))

    def ends(self, made):
        """When an object made then goes: the midnight after its days; None."""
        if self.days is not None:
            return (made // DAY + self.days + 1) * DAY
        return self.date


def parse(data):
    """The rules of a ``LifecycleConfiguration``."""
    elements = parse_xml(data, 'LifecycleConfiguration').findall('Rule')
    if not elements or len(elements) > 1000:
        raise S3Error('MalformedXML')
    rules = [Rule(element) for element in elements]
    names = [rule.id for rule in rules if rule.id]
    if len(names) != len(set(names)):
        raise S3Error('InvalidArgument', 'Rule ID must be unique. Found same ID for more than one rule')
    return rules


def named(data):
    """The document, in which each rule has a name."""
    root = parse_xml(data, 'LifecycleConfiguration')
    for rule in root.findall('Rule'):
        if not rule.findtext('ID'):
            for element in rule.findall('ID'):
                rule.remove(element)
            made = ElementTree.Element('ID')
            made.text = uuid.uuid4().hex
            rule.insert(0, made)
    root.set('xmlns', XMLNS)
    return b'<?xml version="1.0" encoding="UTF-8"?>\n' + ElementTree.tostring(root)


def header(rules, name, size, tags, made):
    """The x-amz-expiration header of an object, or None."""
    ends = [(rule.ends(made), rule.id) for rule in rules if rule.covers(name, size, tags) and rule.ends(made) is not None]
    if not ends:
        return None
    moment, rule = min(ends)
    return f'expiry-date="{formatdate(moment, usegmt=True)}", rule-id="{quote(rule)}"'
