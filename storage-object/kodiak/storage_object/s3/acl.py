"""Access control lists of buckets and objects: canned, by headers, by XML; kept as JSON in system metadata."""
from xml.sax.saxutils import escape

import orjson

from .errors import S3Error
from .xml import XSI, document, parse_xml

BUCKET, OBJECT = 'X-Container-Sysmeta-S3Api-Acl', 'X-Object-Transient-Sysmeta-S3Api-Acl'
GROUPS = 'http://acs.amazonaws.com/groups/'
ALL, KNOWN, LOGS = GROUPS + 'global/AllUsers', GROUPS + 'global/AuthenticatedUsers', GROUPS + 's3/LogDelivery'
PERMISSIONS = ('FULL_CONTROL', 'WRITE', 'WRITE_ACP', 'READ', 'READ_ACP')
HEADERS = {'X-Amz-Grant-Read': 'READ', 'X-Amz-Grant-Write': 'WRITE', 'X-Amz-Grant-Read-Acp': 'READ_ACP',
           'X-Amz-Grant-Write-Acp': 'WRITE_ACP', 'X-Amz-Grant-Full-Control': 'FULL_CONTROL'}
# Whose an object is that somebody else has put into a bucket: of who has put it (OBJECT_WRITER, as without a rule); the bucket
# owner's where the list says bucket-owner-full-control (PREFERRED); always the bucket owner's, without any lists (ENFORCED).
OBJECT_WRITER, PREFERRED, ENFORCED = OWNERSHIPS = ('ObjectWriter', 'BucketOwnerPreferred', 'BucketOwnerEnforced')
OWNERS_CONTROL = 'bucket-owner-full-control'
CANNED = {'private': (), 'public-read': ((ALL, 'READ'),), 'public-read-write': ((ALL, 'READ'), (ALL, 'WRITE')),
          'authenticated-read': ((KNOWN, 'READ'),), 'aws-exec-read': (),
          'log-delivery-write': ((LOGS, 'WRITE'), (LOGS, 'READ_ACP')), 'bucket-owner-read': (), 'bucket-owner-full-control': ()}
MAX_GRANTS = 100


class Acl:
    """``owner`` and ``grants``: ``[(who, permission), ...]``, who being a user's id or a group's URI."""

    def __init__(self, owner, grants):
        self.owner, self.grants = owner, [tuple(grant) for grant in grants]

    @classmethod
    def private(cls, owner):
        """Its owner's alone."""
        return cls(owner, [(owner, 'FULL_CONTROL')])

    @classmethod
    def stored(cls, text):
        """From a header of system metadata; None if there is none."""
        if not text:
            return None
        data = orjson.loads(text.encode('latin-1'))
        return cls(data['owner'], data['grants'])

    def store(self):
        """As such a header."""
        return orjson.dumps({'owner': self.owner, 'grants': self.grants}).decode('utf-8').encode().decode('latin-1')

    def allows(self, who, permission):
        """Whether one of ``who`` (a set; empty for nobody) has a permission."""
        for grantee, granted in self.grants:
            if granted in (permission, 'FULL_CONTROL') and (grantee in who or grantee == ALL or (grantee == KNOWN and who)):
                return True
        return False

    @property
    def public(self):
        """Whether a group of strangers has a permission."""
        return any(who in (ALL, KNOWN) for who, _ in self.grants)

    @property
    def shared(self):
        """Whether somebody besides its owner has a permission."""
        return any(who != self.owner for who, _ in self.grants)

    def render(self):
        """The ``AccessControlPolicy``."""
        rows = []
        for who, permission in sorted(self.grants, key=lambda grant: not grant[0].startswith(GROUPS)):
            if who.startswith(GROUPS):
                grantee = f'<Grantee {XSI} xsi:type="Group"><URI>{who}</URI></Grantee>'
            else:
                grantee = (f'<Grantee {XSI} xsi:type="CanonicalUser"><ID>{escape(who)}</ID><DisplayName>{escape(who)}</DisplayName>'
                           '</Grantee>')
            rows.append(f'<Grant>{grantee}<Permission>{permission}</Permission></Grant>')
        owner = escape(self.owner)
        return document('AccessControlPolicy', f'<Owner><ID>{owner}</ID><DisplayName>{owner}</DisplayName></Owner>'
                                               f'<AccessControlList>{"".join(rows)}</AccessControlList>')


def of_request(call, owner, bucket_owner=None):
    """The list that a request's headers ask for; None if they ask for none. ``bucket_owner``: of an object's bucket."""
    headers = call.request.headers
    canned = headers.get('X-Amz-Acl')
    granted = [(name, headers.get(name)) for name in HEADERS if headers.get(name)]
    if canned and granted:
        raise S3Error('InvalidRequest', 'Specifying both Canned ACLs and Header Grants is not allowed')
    if canned:
        if canned not in CANNED:
            raise S3Error('InvalidArgument', ArgumentName='x-amz-acl', ArgumentValue=canned)
        grants = [(owner, 'FULL_CONTROL'), *CANNED[canned]]
        if canned.startswith('bucket-owner') and bucket_owner and bucket_owner != owner:
            grants.append((bucket_owner, 'READ' if canned.endswith('read') else 'FULL_CONTROL'))
        return Acl(owner, grants)
    if not granted:
        return None
    grants = []
    for name, value in granted:
        for grantee in value.split(','):
            kind, _, who = grantee.strip().partition('=')
            who = who.strip().strip('"')
            kind = kind.strip().lower()
            if kind == 'emailaddress':
                raise S3Error('NotImplemented')
            if not who or kind not in ('id', 'uri') or (kind == 'uri' and who not in (ALL, KNOWN, LOGS)):
                raise S3Error('InvalidArgument', 'Argument format not recognized', ArgumentName=name.lower(), ArgumentValue=value)
            grants.append((who, HEADERS[name]))
    return Acl(owner, grants)


def of_object(call, rule, bucket_owner):
    """The list of an object that is written, under a bucket's rule of ownership; None for that of the bucket owner alone."""
    asked = of_request(call, call.user_id, bucket_owner)
    control = call.request.headers.get('X-Amz-Acl') == OWNERS_CONTROL
    if rule == ENFORCED:
        if asked is not None and not control:
            raise S3Error('AccessControlListNotSupported')
        return None
    if rule == PREFERRED and control:
        return Acl.private(bucket_owner)
    if asked is None and not call.owned:
        return Acl.private(call.user_id)
    return asked


def of_xml(data, owner):
    """The list of an ``AccessControlPolicy``."""
    root = parse_xml(data)
    if root.tag != 'AccessControlPolicy':
        raise S3Error('MalformedACLError')
    given = root.findtext('Owner/ID')
    listing = root.find('AccessControlList')
    if not given or listing is None:
        raise S3Error('MalformedACLError')
    if given != owner:
        raise S3Error('AccessDenied')
    grants = []
    for grant in listing.findall('Grant'):
        permission, grantee = grant.findtext('Permission'), grant.find('Grantee')
        if permission not in PERMISSIONS or grantee is None:
            raise S3Error('MalformedACLError')
        who = grantee.findtext('ID') or grantee.findtext('URI')
        if not who and grantee.findtext('EmailAddress'):
            raise S3Error('NotImplemented')
        if not who:
            raise S3Error('MalformedACLError')
        if grantee.findtext('URI') and who not in (ALL, KNOWN, LOGS):
            raise S3Error('InvalidArgument', 'Invalid group uri', ArgumentName='uri', ArgumentValue=who)
        grants.append((who, permission))
    if len(grants) > MAX_GRANTS:
        raise S3Error('MalformedACLError')
    return Acl(owner, grants)
